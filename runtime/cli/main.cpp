// t5g2-run: prompts through a bundle, the answers to stdout.

#include <csignal>
#include <exception>
#include <new>

#include "console.h"
#include "interrupt.h"
#include "modes.h"

namespace t5g2::cli {

const char* const kProgram = "t5g2-run";

namespace {

int run(int argc, char** argv) {
  const Options options = parse(argc, argv);
  if (options.help) return print(help_text()), 0;
  if (options.version) return print(join(kProgram, " ", t5g2_version(), "\n")), 0;
  watch_interrupts();
  if (options.prompts) return run_prompts(options);
  if (options.jsonl) return run_jsonl(options);
  if (options.interactive) return run_interactive(options);
  return run_once(options);
}

int run_and_explain(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const ReaderGone&) {
    return kReaderGone;
  } catch (const Error& error) {
    say_error(error.what());
    return error.kind() == Error::Kind::kUsage ? 2 : 1;
  } catch (const std::bad_alloc&) {
    say_error("not enough memory; close other programs, or ask for less (a smaller model, a shorter source)");
  } catch (const std::exception& error) {
    say_error(join("unexpected ", error.what(), "; report it"));
  }
  return 1;
}

}  // namespace
}  // namespace t5g2::cli

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  t5g2::cli::open_standard_streams();
  return t5g2::cli::run_and_explain(argc, argv);
}
