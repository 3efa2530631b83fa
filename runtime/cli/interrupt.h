// Ctrl-C. A thread waits for it, so that what it does need not be safe in a signal handler.

#pragma once

#include <mutex>

#include "t5g2.hpp"

namespace t5g2::cli {

// From now on Ctrl-C ends the program with exit code 130, unless whoever started it has SIGINT ignored. Call it before any
// thread is made.
void watch_interrupts();

// While it lives, the first Ctrl-C cancels that generation instead.
class Cancellable {
 public:
  explicit Cancellable(const Generation& generation);
  ~Cancellable();
  Cancellable(const Cancellable&) = delete;
};

// While it lives, Ctrl-C waits: for files that are to appear whole or not at all.
class Uninterrupted {
 public:
  Uninterrupted();

 private:
  std::lock_guard<std::mutex> lock_;
};

}  // namespace t5g2::cli
