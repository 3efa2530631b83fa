// CHECK: prints what failed and leaves the running test.

#pragma once

#include <cstdarg>
#include <cstdio>

namespace t5g2::test {

struct Failed {};

// kernels: the name of those in use, or null where they have no part in it.
[[noreturn]] inline void fail(const char* file, int line, const char* condition, const char* kernels, const char* format, ...)
    __attribute__((format(printf, 5, 6)));

inline void fail(const char* file, int line, const char* condition, const char* kernels, const char* format, ...) {
  std::fprintf(stderr, "%s:%d: %s is false", file, line, condition);
  if (kernels) std::fprintf(stderr, " with %s kernels", kernels);
  std::fputs(": ", stderr);
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
  throw Failed{};
}

// Test files say which kernels a failure is to name.
#define CHECK(condition, ...)                                                                                      \
  do {                                                                                                             \
    if (!(condition)) t5g2::test::fail(__FILE__, __LINE__, #condition, t5g2::test::kernels_in_use(), __VA_ARGS__); \
  } while (false)

}  // namespace t5g2::test
