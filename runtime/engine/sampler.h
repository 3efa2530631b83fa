// Choosing the next token from logits.

#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "softmax.h"

namespace t5g2 {

// Applied in the order repetition_penalty, no_repeat_ngram, temperature, top_k, top_p, min_p.
struct SamplingOptions {
  float temperature = 0;         // 0: greedy, the first of equal maxima; top_k, top_p and min_p then change nothing
  float top_p = 1;               // keep the fewest of the likeliest tokens that together reach this probability; 1: all
  float min_p = 0;               // keep tokens at least this times as likely as the likeliest; 0: all
  float repetition_penalty = 1;  // above 1: ids of the target become less likely; 1: off
  int32_t top_k = 0;             // keep the k likeliest tokens, of equal ones the lower ids; 0: all
  int32_t no_repeat_ngram = 0;   // no run of that many ids twice in a target; 0: off
};

// Throws Error(kUsage) naming the option that is out of range.
void check(const SamplingOptions& options);

// A seed from the system.
uint64_t random_seed();

// Takes exactly one random number a call, none when greedy; the same seed and logits give the same ids.
class Sampler {
 public:
  // suppressed: ids that are never chosen. vocab: how many logits there are. Throws Error(kUsage) naming what is out of range.
  Sampler(const SamplingOptions& options, uint64_t seed, std::vector<int32_t> suppressed, int32_t vocab);

  // Chooses the next id. logits: [vocab], used as scratch. target: BOS and all ids so far. forbidden: ids not to choose in this
  // call, as stop ids before a minimum length. Throws Error where logits hold NaN or +infinity, even for ids that are
  // suppressed, and where nothing is left to choose from.
  int32_t sample(std::span<float> logits, std::span<const int32_t> target, std::span<const int32_t> forbidden);

 private:
  float weight(float score) const;  // proportional to the probability, 1 for the likeliest
  double mass(size_t first, size_t last) const;
  template <class Enough>
  size_t leading(Enough enough);
  double total_mass(std::span<const float> logits);
  void keep_nucleus(std::span<const float> logits);
  int32_t draw(std::span<const float> logits, double u);
  int32_t draw_from_all(std::span<const float> logits, double u);

  SamplingOptions options_;
  std::vector<int32_t> suppressed_;
  size_t vocab_;
  std::mt19937_64 random_;  // its output is fixed by the standard
  BlockMaxima maxima_;
  std::vector<Candidate> candidates_;
  std::vector<double> block_mass_;
};

}  // namespace t5g2
