// What changes a step's scores before a token is chosen. As transformers' processors of the same names, over the ids that the
// decoder has read: BOS, prefix and generated.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace t5g2 {

// Throws Error(kUsage) naming `name` where an id is not one of the vocabulary's.
void check_ids(std::string_view name, std::span<const int32_t> ids, size_t vocab);

// Throw Error(kUsage) where the option is out of range.
void check_repetition_penalty(float penalty);
void check_no_repeat_ngram(int32_t n);

// Each id that the target holds: a negative score times the penalty, another one divided by it, however often it occurs.
void penalize_repetition(std::span<float> scores, std::span<const int32_t> target, float penalty);

// Forbids every id that would complete a run of n ids, n > 0, that the target already holds.
void forbid_repeated_ngrams(std::span<float> scores, std::span<const int32_t> target, size_t n);

// Sets the ids' scores to -infinity.
void forbid(std::span<float> scores, std::span<const int32_t> ids);

}  // namespace t5g2
