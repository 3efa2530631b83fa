// Sources encoded and targets generated, with what that took.

#pragma once

#include <cstddef>
#include <functional>

#include "input.h"
#include "t5g2.hpp"

namespace t5g2::cli {

// Of all that was asked since the program started, or since the last question of the interactive loop.
struct Stats {
  size_t sources = 0, source_tokens = 0;
  double encode_seconds = 0;
  size_t targets = 0;
  double first_seconds = 0;   // from the question to its first token, reading the source included
  double decode_seconds = 0;  // from there to the end
  size_t decoded_tokens = 0;  // in that time
};

class Answerer {
 public:
  explicit Answerer(Engine engine) : engine_(std::move(engine)) {}

  const Engine& engine() const { return engine_; }
  Stats& stats() { return stats_; }

  // Encodes, or throws Error.
  Session encode(const Input& input);

  // Generates a target, calling show for every token; the generation then has the result. Throws what show throws, and Error.
  // cancellable: Ctrl-C ends the target, not the program.
  Generation answer(const Session& session, const GenerationOptions& options, const std::function<void(const Token&)>& show,
                    bool cancellable = false);

 private:
  Engine engine_;
  Stats stats_;
  double source_seconds_ = 0;  // of the source that no target was generated for yet
};

// To stderr.
void print_stats(const Engine& engine, const Stats& stats);

}  // namespace t5g2::cli
