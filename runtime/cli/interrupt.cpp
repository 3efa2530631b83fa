#include "interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <thread>

#include "console.h"

namespace t5g2::cli {
namespace {

std::mutex mutex;
const Generation* in_progress = nullptr;  // to be cancelled

void interrupted() {
  const std::lock_guard lock(mutex);
  if (in_progress) {
    in_progress->cancel();
    in_progress = nullptr;
    return;
  }
  if (isatty(STDERR_FILENO)) remark("\n");
  note("interrupted");
  _exit(kInterrupted);
}

}  // namespace

void watch_interrupts() {
  struct sigaction before;
  if (sigaction(SIGINT, nullptr, &before) || before.sa_handler == SIG_IGN) return;
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // threads inherit it
  std::thread([signals] {
    for (int signal; sigwait(&signals, &signal) == 0;) interrupted();
  }).detach();
}

Cancellable::Cancellable(const Generation& generation) {
  const std::lock_guard lock(mutex);
  in_progress = &generation;
}

Cancellable::~Cancellable() {
  const std::lock_guard lock(mutex);
  in_progress = nullptr;
}

Uninterrupted::Uninterrupted() : lock_(mutex) {}

}  // namespace t5g2::cli
