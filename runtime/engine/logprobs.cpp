#include "logprobs.h"

#include <algorithm>

#include "error.h"
#include "logits_processors.h"
#include "softmax.h"

namespace t5g2 {
namespace {

// What makes log-probabilities of logits.
struct Normalizer {
  double largest, log_sum;

  Normalizer(std::span<const float> logits, BlockMaxima& maxima) {
    check_numbers(logits);
    maxima.update(logits);
    if (maxima.largest() == kImpossible) fail("the model's logits are all -infinity; the bundle is damaged");
    largest = maxima.largest();
    log_sum = log_exp_sum(logits, maxima.largest());
  }
  float logprob(float logit) const { return float(logit - largest - log_sum); }
};

}  // namespace

TopLogprobs top_logprobs(std::span<const float> logits, int32_t chosen, int32_t n) {
  check_ids("chosen", {&chosen, 1}, logits.size());
  BlockMaxima maxima;
  const Normalizer normalizer(logits, maxima);
  TopLogprobs result{normalizer.logprob(logits[size_t(chosen)]), {}, {}};
  if (n <= 0) return result;
  std::vector<Candidate> best;
  maxima.best(size_t(n), best);
  std::sort(best.begin(), best.end(), likelier);
  for (const Candidate& candidate : best) {
    result.ids.push_back(candidate.id);
    result.logprobs.push_back(normalizer.logprob(candidate.score));
  }
  return result;
}

float logprob_of(std::span<const float> logits, int32_t id) {
  return top_logprobs(logits, id, 0).chosen;
}

void log_softmax(std::span<float> logits) {
  BlockMaxima maxima;
  const Normalizer normalizer(logits, maxima);
  for (float& logit : logits) logit = normalizer.logprob(logit);
}

}  // namespace t5g2
