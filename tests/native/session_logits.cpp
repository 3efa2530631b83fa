// What a bundle makes of a source, over the public interface: `session_logits BUNDLE CACHE TOKENS OUT ID...`.
//
// Encodes the source IDs and decodes TOKENS greedily, none of them twice: random weights would repeat BOS. Prints
// the name of the kernels and the ids, and writes float32 to OUT:
//   [vocabulary]           logits after BOS alone, a step of one row
//   [TOKENS][100]          log-probabilities of the likeliest tokens of each of the steps, which have one row, likeliest first
//   [1 + TOKENS][vocabulary]  logits after BOS and each of the source's next ids as a target, read all at once
// CACHE is where hashes of checked files are remembered.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "t5g2.hpp"

namespace {

constexpr int32_t kLikeliest = 100;

template <class T>
T take(t5g2::Result<T> result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "session_logits: %s\n", result.error().message.c_str());
  std::exit(1);
}

void append(std::vector<float>& all, std::span<const float> more) { all.insert(all.end(), more.begin(), more.end()); }

}  // namespace

int main(int argc, char** argv) {
  const int32_t tokens = argc > 3 ? std::atoi(argv[3]) : 0;
  if (argc < 6 + tokens) {
    std::fprintf(stderr, "usage: session_logits BUNDLE CACHE TOKENS OUT ID..., more ids than TOKENS\n");
    return 2;
  }
  const t5g2::Engine engine = take(t5g2::Engine::open(argv[1], {.threads = 2, .cache_folder = argv[2]}));
  std::puts(std::string(engine.kernels()).c_str());
  std::vector<int32_t> source;
  for (int i = 5; i < argc; ++i) source.push_back(std::atoi(argv[i]));
  const t5g2::Session session = take(t5g2::Session::make(engine, {.ids = source}));

  std::vector<int32_t> target{engine.info().bos_id};
  std::vector<float> out = take(session.logits(target));
  t5g2::GenerationOptions options{.max_new_tokens = tokens, .min_new_tokens = tokens};
  options.no_repeat_ngram = 1;
  options.logprobs = kLikeliest;
  t5g2::Generation generation = take(t5g2::Generation::start(session, options));
  while (const auto token = take(generation.next())) {
    if (token->id < 0) continue;
    append(out, token->top_logprobs);
    std::printf("%d\n", token->id);
  }
  target.insert(target.end(), source.begin() + 1, source.begin() + 1 + tokens);
  append(out, take(session.logits(target)));

  std::ofstream file(argv[4], std::ios::binary);
  file.write(reinterpret_cast<const char*>(out.data()), std::streamsize(out.size() * sizeof(float)));
  file.close();
  if (file) return 0;
  std::fprintf(stderr, "session_logits: %s: cannot be written\n", argv[4]);
  return 1;
}
