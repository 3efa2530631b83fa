// Log-probabilities of tokens under the model: natural logs of the softmax of its raw logits.

#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace t5g2 {

struct TopLogprobs {
  float chosen;                 // of the chosen id
  std::vector<int32_t> ids;     // the likeliest, likeliest first, of equal ones the lower id
  std::vector<float> logprobs;  // theirs
};

// Of the chosen id and of the n likeliest, fewer where fewer ids have a probability above 0. To 2e-6 of the value, or 1e-12.
// Throws Error where logits hold NaN or +infinity or nothing but -infinity, and Error(kUsage) where `chosen` is not an id.
TopLogprobs top_logprobs(std::span<const float> logits, int32_t chosen, int32_t n);

// Of one id; throws as above.
float logprob_of(std::span<const float> logits, int32_t id);

// In place: logits become the log-probabilities. Throws as above.
void log_softmax(std::span<float> logits);

}  // namespace t5g2
