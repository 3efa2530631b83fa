#include "logits_processors.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "error.h"
#include "softmax.h"

namespace t5g2 {

void check_ids(std::string_view name, std::span<const int32_t> ids, size_t vocab) {
  for (int32_t id : ids) {
    if (id < 0 || size_t(id) >= vocab) misuse(name, ": id ", id, "; give ids from 0 to ", vocab - 1);
  }
}

void check_repetition_penalty(float penalty) {
  if (penalty > 0 && std::isfinite(penalty)) return;  // NaN is out of range
  misuse("repetition_penalty: ", penalty, "; give more than 0 (1 changes nothing)");
}

void check_no_repeat_ngram(int32_t n) {
  if (n < 0) misuse("no_repeat_ngram: ", n, "; give 0 (off) or more");
}

void penalize_repetition(std::span<float> scores, std::span<const int32_t> target, float penalty) {
  std::vector<float> penalized;  // all of them first: an id may occur more than once
  penalized.reserve(target.size());
  for (int32_t id : target) {
    const float score = scores[size_t(id)];
    // A tiny penalty must not make an infinity of a large score.
    penalized.push_back(score < 0 ? score * penalty : std::min(score / penalty, std::numeric_limits<float>::max()));
  }
  for (size_t i = 0; i < target.size(); ++i) scores[size_t(target[i])] = penalized[i];
}

void forbid_repeated_ngrams(std::span<float> scores, std::span<const int32_t> target, size_t n) {
  if (target.size() < n) return;
  const auto last = target.last(n - 1);
  for (size_t i = 0; i + n <= target.size(); ++i) {
    const auto ngram = target.subspan(i, n);
    if (std::equal(last.begin(), last.end(), ngram.begin())) scores[size_t(ngram.back())] = kImpossible;
  }
}

void forbid(std::span<float> scores, std::span<const int32_t> ids) {
  for (int32_t id : ids) scores[size_t(id)] = kImpossible;
}

}  // namespace t5g2
