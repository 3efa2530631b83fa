#include "modes.h"

#include <string>
#include <vector>

#include "console.h"

namespace t5g2::cli {

Answerer open_bundle(const Options& options) {
  Answerer answerer(take(Engine::open(options.bundle, options.engine)));
  if (options.verbose) {
    const Engine& engine = answerer.engine();
    const EngineInfo info = engine.info();
    note(join("version ", t5g2_version(), ", ", engine.kernels(), " kernels"));
    note(join(options.bundle, ": up to ", info.max_source, " source and ", info.max_target, " target tokens, vocabulary of ",
              info.vocab_size, info.has_tokenizer ? "" : ", no tokenizer",
              info.has_vision ? join(", pictures of ", info.image_side, " x ", info.image_side, " pixels") : ", no vision"));
  }
  return answerer;
}

void describe(const Session& session, const Options& options) {
  if (!options.verbose) return;
  const std::vector<int32_t> ids = take(session.ids());
  std::string line = join("source of ", ids.size(), " tokens:");
  for (const int32_t id : ids) line += join(" ", id);
  note(line);
}

void describe(const Generation& generation, const Options& options) {
  if (!options.verbose) return;
  static constexpr const char* kReasons[] = {"not finished", "a stop id or string", "max_new_tokens", "cancelled"};
  const Target target = take(generation.result());
  note(join("answer of ", target.ids.size(), " tokens, ended by ", kReasons[target.finish]));
}

}  // namespace t5g2::cli
