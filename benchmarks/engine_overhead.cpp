// What the engine adds to a decoder step: greedy generation against bare steps, in turn, from the same source. Prints one JSON
// object.
//
//     engine_overhead BUNDLE [--source 512] [--steps 64] [--rounds 9] [--threads 1]

#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "benchmarks/bench/statistics.h"
#include "benchmarks/number_options.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/generation.h"

namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

void measure(const char* bundle, t5g2::NumberOptions options) {
  t5g2::EngineOptions engine_options;
  engine_options.threads = int32_t(options["--threads"]);
  const auto engine = std::make_shared<t5g2::Engine>(bundle, engine_options);
  std::vector<int32_t> ids;
  for (long i = 0; i < options["--source"]; ++i) ids.push_back(int32_t(5 + i * 7919 % 1000));
  const auto source = std::make_shared<const t5g2::EncodedSource>(engine->encode(ids, nullptr, 0));
  const auto steps = int32_t(options["--steps"]);

  t5g2::GenerationOptions greedy;
  greedy.max_new_tokens = greedy.min_new_tokens = steps;
  std::vector<double> bare, whole, overhead;
  for (long round = 0; round < options["--rounds"]; ++round) {
    t5g2::Generation generation(engine, source, greedy);
    auto token = generation.next();  // the first sets memory up
    std::vector<int32_t> chosen = {token->id};
    auto start = Clock::now();
    while ((token = generation.next())) chosen.push_back(token->id);
    whole.push_back(ms_since(start) / (steps - 1));

    t5g2::Pages cache = engine->new_cache();
    int32_t id = engine->manifest().tokens.bos;
    for (int32_t position = 0; position < steps; ++position) {
      if (position == 1) start = Clock::now();
      engine->feed(*source, cache, {&id, 1}, size_t(position), [](size_t, std::span<float>) { return true; });
      id = chosen[size_t(position)];
    }
    bare.push_back(ms_since(start) / (steps - 1));
    overhead.push_back(whole.back() / bare.back() - 1);
  }
  using t5g2::bench::median;
  std::printf("{\"threads\": %ld, \"source\": %ld, \"step_ms\": %.3f, \"token_ms\": %.3f, \"overhead\": %.4f}\n",
              options["--threads"], options["--source"], median(bare), median(whole), median(overhead));
}

}  // namespace

int main(int argc, char** argv) {
  return t5g2::run_with_numbers("engine_overhead", argc, argv,
                                {{"--source", 512}, {"--steps", 64}, {"--rounds", 9}, {"--threads", 1}}, measure);
}
