#include "console.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "../engine/utf8.h"

namespace t5g2::cli {
namespace {

// False with errno set where not all of it can be written.
bool write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = write(descriptor, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    text.remove_prefix(size_t(count));
  }
  return true;
}

// Controls, and what is invisible or turns the direction of writing.
bool printable(char32_t c) {
  const bool control = c < 0x20 || (c >= 0x7F && c < 0xA0);
  const bool format = c == 0xAD || (c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) ||
                      (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFB) || c >= 0xE0000;
  return !control && !format;
}

// Line ends and tabs become spaces; what is not printable, and bytes that are not UTF-8, \x and their value.
std::string one_line(std::string_view text) {
  std::string line;
  const auto escape = [&](std::string_view bytes) {
    for (const char byte : bytes) {
      char code[5];
      std::snprintf(code, sizeof(code), "\\x%02x", unsigned(uint8_t(byte)));
      line += code;
    }
  };
  while (!text.empty()) {
    const CodePoint c = first_code_point(text);
    const std::string_view bytes = text.substr(0, c.length ? c.length : 1);
    if (bytes == "\n" || bytes == "\r" || bytes == "\t") {
      line += ' ';
    } else if (c.length && printable(c.value)) {
      line += bytes;
    } else {
      escape(bytes);
    }
    text.remove_prefix(bytes.size());
  }
  return line;
}

}  // namespace

void open_standard_streams() {
  int null;
  do {
    null = open("/dev/null", O_RDWR);  // takes the lowest number that is free
  } while (null >= 0 && null <= STDERR_FILENO);
  if (null >= 0) close(null);
}

void print(std::string_view text) {
  if (write_all(STDOUT_FILENO, text)) return;
  if (errno == EPIPE) throw ReaderGone();
  const char* remedy = errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? "free some space or write elsewhere"
                                                                            : "write elsewhere";
  fail("the output: cannot write it (", std::strerror(errno), "); ", remedy);
}

// Nothing is left to tell if stderr fails.
void remark(std::string_view text) { write_all(STDERR_FILENO, text); }

void note(std::string_view message) { remark(join(kProgram, ": ", one_line(message), "\n")); }

void say_error(std::string_view message) { remark(join(kProgram, ": error: ", one_line(message), "\n")); }

}  // namespace t5g2::cli
