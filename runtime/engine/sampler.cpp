#include "sampler.h"

#include <algorithm>
#include <cmath>

#include "error.h"
#include "logits_processors.h"

namespace t5g2 {

void check(const SamplingOptions& o) {
  // Written so that NaN is out of range.
  if (!(o.temperature >= 0 && std::isfinite(o.temperature))) {
    misuse("temperature: ", o.temperature, "; give 0 (greedy) or more");
  }
  if (!(o.top_p > 0 && o.top_p <= 1)) misuse("top_p: ", o.top_p, "; give more than 0 and at most 1 (1 keeps every token)");
  if (!(o.min_p >= 0 && o.min_p <= 1)) misuse("min_p: ", o.min_p, "; give 0 (keeps every token) to 1");
  check_repetition_penalty(o.repetition_penalty);
  if (o.top_k < 0) misuse("top_k: ", o.top_k, "; give 0 (keeps every token) or more");
  check_no_repeat_ngram(o.no_repeat_ngram);
}

uint64_t random_seed() {
  std::random_device device;
  return uint64_t(device()) << 32 | device();
}

Sampler::Sampler(const SamplingOptions& options, uint64_t seed, std::vector<int32_t> suppressed, int32_t vocab)
    : options_(options), suppressed_(std::move(suppressed)), vocab_(size_t(vocab)), random_(seed) {
  check(options_);
  if (vocab < 1) misuse("vocab: ", vocab, "; give 1 or more");
  check_ids("suppressed_ids", suppressed_, vocab_);
  if (options_.top_k >= vocab) options_.top_k = 0;
}

int32_t Sampler::sample(std::span<float> logits, std::span<const int32_t> target, std::span<const int32_t> forbidden) {
  if (logits.size() != vocab_) misuse("logits: ", logits.size(), " of them; give ", vocab_);
  check_ids("target", target, vocab_);
  check_ids("forbidden", forbidden, vocab_);
  check_numbers(logits);

  if (options_.repetition_penalty != 1) penalize_repetition(logits, target, options_.repetition_penalty);
  if (options_.no_repeat_ngram > 0) forbid_repeated_ngrams(logits, target, size_t(options_.no_repeat_ngram));
  forbid(logits, forbidden);
  forbid(logits, suppressed_);

  maxima_.update(logits);
  if (maxima_.largest() == kImpossible) fail("every token is suppressed or has probability 0; suppress fewer");
  if (options_.temperature == 0) return maxima_.first_largest();
  const double u = double(random_() >> 11) * 0x1p-53;
  return draw(logits, u);
}

float Sampler::weight(float score) const {
  // Divided by the temperature rather than multiplied: 1 / temperature may be infinite, and 0 times that is NaN.
  return exp_nonpositive((score - maxima_.largest()) / options_.temperature);
}

// Of candidates_[first, last).
double Sampler::mass(size_t first, size_t last) const {
  double sum = 0;
  for (size_t i = first; i < last; ++i) sum += double(weight(candidates_[i].score));
  return sum;
}

// How many candidates, from the likeliest, it takes until enough(their mass); all where rounding keeps it short. Leaves those
// in front, the least likely of them last.
template <class Enough>
size_t Sampler::leading(Enough enough) {
  size_t first = 0, last = candidates_.size();  // more than `first`, at most `last`
  double before = 0;                            // mass of the candidates before `first`
  while (last - first > 1) {
    const size_t middle = first + (last - first) / 2;
    const auto begin = candidates_.begin();
    std::nth_element(begin + ptrdiff_t(first), begin + ptrdiff_t(middle), begin + ptrdiff_t(last), likelier);
    const double through = before + mass(first, middle);
    if (enough(through)) {
      last = middle;
    } else {
      first = middle;
      before = through;
    }
  }
  return last;
}

// Of all tokens, and block by block.
double Sampler::total_mass(std::span<const float> logits) {
  double total = 0;
  block_mass_.resize((logits.size() + kBlock - 1) / kBlock);
  each_block(logits, [&](size_t i, const float* block) {
    block_mass_[i] = block_exp_sum(block, maxima_.largest(), options_.temperature);
    total += block_mass_[i];
  });
  return total;
}

// Leaves the candidates that top_p keeps, of those of top_k or else of all tokens.
void Sampler::keep_nucleus(std::span<const float> logits) {
  double needed;
  if (options_.top_k > 0) {
    needed = options_.top_p * mass(0, candidates_.size());
  } else {
    const double total = total_mass(logits);
    needed = options_.top_p * total;
    maxima_.best(1024, candidates_);  // most often more than enough
    if (mass(0, candidates_.size()) < needed) {
      // All tokens below this weight together have less than half of what may be missing.
      const double weight = 0.5 * (total - needed) / double(vocab_);
      maxima_.at_least(maxima_.largest() + options_.temperature * std::log(weight), candidates_);
    }
  }
  candidates_.resize(leading([&](double reached) { return reached >= needed; }));
}

int32_t Sampler::draw(std::span<const float> logits, double u) {
  if (options_.top_k == 0 && options_.top_p == 1 && options_.min_p == 0) return draw_from_all(logits, u);
  // The score that is min_p times as likely as the largest. What is below 1e-37 times that has weight 0 in float32.
  const double floor = maxima_.largest() + options_.temperature * std::log(std::max(double(options_.min_p), 1e-37));
  if (options_.top_k == 0 && options_.top_p == 1) {
    maxima_.at_least(floor, candidates_);
  } else {
    if (options_.top_k > 0) maxima_.best(size_t(options_.top_k), candidates_);
    if (options_.top_p < 1) keep_nucleus(logits);
    std::erase_if(candidates_, [&](const Candidate& candidate) { return candidate.score < floor; });
  }
  const double target = u * mass(0, candidates_.size());
  return candidates_[leading([&](double passed) { return passed > target; }) - 1].id;
}

// By id: first the block that u falls on, then the token.
int32_t Sampler::draw_from_all(std::span<const float> logits, double u) {
  const double target = u * total_mass(logits);
  double passed = 0;
  size_t block = 0;
  for (; block + 1 < block_mass_.size() && passed + block_mass_[block] <= target; ++block) passed += block_mass_[block];
  int32_t chosen = maxima_.first_largest();  // where rounding leads to a last block in which nothing is possible
  for (size_t i = block * kBlock; i < std::min((block + 1) * kBlock, logits.size()); ++i) {
    const double mine = double(weight(logits[i]));
    if (mine == 0) continue;
    chosen = int32_t(i);
    passed += mine;
    if (passed > target) break;
  }
  return chosen;
}

}  // namespace t5g2
