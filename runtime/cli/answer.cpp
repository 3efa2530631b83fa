#include "answer.h"

#include <chrono>
#include <optional>
#include <utility>

#include "console.h"
#include "interrupt.h"

namespace t5g2::cli {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

Session Answerer::encode(const Input& input) {
  const auto start = Clock::now();
  Session session = take(cli::encode(engine_, input));
  source_seconds_ = seconds_since(start);
  ++stats_.sources;
  stats_.source_tokens += take(session.ids()).size();
  stats_.encode_seconds += source_seconds_;
  return session;
}

Generation Answerer::answer(const Session& session, const GenerationOptions& options,
                            const std::function<void(const Token&)>& show, bool cancellable) {
  auto start = Clock::now();
  Generation generation = take(Generation::start(session, options));
  std::optional<Cancellable> cancel;
  if (cancellable) cancel.emplace(generation);
  size_t tokens = 0;
  while (const auto token = take(generation.next())) {
    if (tokens == 0) {
      stats_.first_seconds += std::exchange(source_seconds_, 0) + seconds_since(start);
      // Beams are searched before their first token is known: all of that is decoding.
      if (options.beams == 1) start = Clock::now();
    }
    tokens += token->id >= 0;
    show(*token);
  }
  cancel.reset();
  ++stats_.targets;
  stats_.decode_seconds += tokens ? seconds_since(start) : 0;
  stats_.decoded_tokens += tokens - (tokens && options.beams == 1);
  return generation;
}

}  // namespace t5g2::cli
