#include "child.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <new>

#include "runtime/engine/error.h"

namespace t5g2::bench {
namespace {

constexpr const char* kNoMemory = "not enough memory; close other programs, or give a smaller bundle or a shorter --source";

Json answer(const std::string& what, const std::function<Json()>& work) {
  try {
    return {{"result", work()}};
  } catch (const Error& error) {
    return {{"error", error.what()}, {"usage", error.kind() == Error::Kind::kUsage}};
  } catch (const std::bad_alloc&) {
    return {{"error", join(what, ": ", kNoMemory)}};
  } catch (const std::exception& error) {
    return {{"error", join(what, ": ", error.what())}};
  }
}

[[noreturn]] void explain_death(const std::string& what, int status) {
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) fail(what, ": was killed, as a system does that runs out of memory; ",
                                                              "give a smaller bundle or a shorter --source");
  if (WIFSIGNALED(status)) fail(what, ": crashed (", strsignal(WTERMSIG(status)), "); report it");
  fail(what, ": ended without a result; report it");
}

}  // namespace

Json in_child(const std::string& what, const std::function<Json()>& work) {
  int ends[2];
  if (pipe(ends)) fail("cannot make a pipe (", std::strerror(errno), "); close other programs");
  const pid_t parent = getpid(), child = fork();
  if (child < 0) fail("cannot start a process (", std::strerror(errno), "); close other programs");
  if (!child) {
    // A parent that is killed would leave it computing, for minutes on a phone.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    close(ends[0]);
    const std::string text = answer(what, work).dump();
    for (size_t at = 0; at < text.size();) {
      const ssize_t count = write(ends[1], text.data() + at, text.size() - at);
      if (count < 0 && errno != EINTR) break;
      if (count > 0) at += size_t(count);
    }
    _exit(0);  // what the parent has opened and buffered is the parent's
  }
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t count; (count = read(ends[0], buffer, sizeof(buffer))) != 0;) {
    if (count > 0) text.append(buffer, size_t(count));
    if (count < 0 && errno != EINTR) break;
  }
  close(ends[0]);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  const Json found = Json::parse(text, nullptr, false);
  if (found.is_discarded()) explain_death(what, status);
  if (found.contains("result")) return found["result"];
  const bool usage = found.value("usage", false);
  throw Error(usage ? Error::Kind::kUsage : Error::Kind::kInput, found["error"].get<std::string>());
}

}  // namespace t5g2::bench
