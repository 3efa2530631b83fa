// The standard streams: answers on stdout, all else on stderr.

#pragma once

#include <string>
#include <string_view>

#include "../engine/error.h"
#include "t5g2.hpp"

namespace t5g2::cli {

extern const char* const kProgram;  // the program's name; each defines it

constexpr int kInterrupted = 130;  // exit codes, as of a program that SIGINT or SIGPIPE ended
constexpr int kReaderGone = 141;

// Thrown where nobody reads stdout any more.
struct ReaderGone {};

// Gives closed standard streams to the null device, lest the next file opened takes their place.
void open_standard_streams();

// Writes to stdout at once. Throws Error or ReaderGone.
void print(std::string_view text);

// One line on stderr each, whatever the message holds: a file's name may have line ends and terminal codes in it.
void note(std::string_view message);       // "program: message"
void say_error(std::string_view message);  // "program: error: message"

// To stderr as it is.
void remark(std::string_view text);

// The value, or the failure thrown as an Error.
template <class T>
T take(Result<T> result) {
  if (result.ok()) return std::move(*result);
  const Failure& failure = result.error();
  throw Error(failure.status == T5G2_USAGE ? Error::Kind::kUsage : Error::Kind::kInput, failure.message);
}

}  // namespace t5g2::cli
