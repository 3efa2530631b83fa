// Passes over a vocabulary's scores: the largest, sums of exponentials, the n best without sorting.
//
// A vocabulary has up to 262144 entries and a decode step takes milliseconds, so each pass goes by blocks of kBlock scores in
// loops that compilers turn into vectors. Sums are float64.

#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace t5g2 {

inline constexpr size_t kBlock = 64;
inline constexpr float kImpossible = -std::numeric_limits<float>::infinity();  // the score of what is never chosen

struct Candidate {
  float score;
  int32_t id;
};

// Of equal scores the lower id comes first.
inline bool likelier(const Candidate& a, const Candidate& b) { return a.score != b.score ? a.score > b.score : a.id < b.id; }

// exp(x) for x <= 0: within 2e-7 of itself, exactly 1 at 0, and 0 below -87. Masks instead of branches, so that compilers make
// vectors of loops over it.
inline float exp_nonpositive(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  // 1 + r + r^2 q(r), q fitted for the least relative error on |r| <= ln 2 / 2: 4e-9 before rounding.
  const float q = 0.49999994f + r * (0.16666521f + r * (0.04166839f + r * (0.008368745f + r * 0.001381454f)));
  const float fraction = (q * (r * r) + r) + 1.0f;
  const uint32_t power = (std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRound) + 127) << 23;  // 2^n
  const uint32_t keep = -uint32_t(x >= -87.0f);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(fraction) & keep) * std::bit_cast<float>(power & keep);
}

// Calls body(index, block) for each run of kBlock scores; the last is filled up with kImpossible.
template <class Body>
void each_block(std::span<const float> scores, Body body) {
  const size_t whole = scores.size() / kBlock;
  for (size_t i = 0; i < whole; ++i) body(i, scores.data() + i * kBlock);
  if (const size_t rest = scores.size() % kBlock) {
    float block[kBlock];
    std::fill(std::copy_n(scores.data() + whole * kBlock, rest, block), block + kBlock, kImpossible);
    body(whole, block);
  }
}

// Throws Error where scores hold NaN or +infinity, which no sound model gives.
void check_numbers(std::span<const float> scores);

// The largest score of each block. They tell where the best scores are.
class BlockMaxima {
 public:
  // Scores hold neither NaN nor +infinity, and stay as they are while they are asked about.
  void update(std::span<const float> scores);

  float largest() const { return largest_; }  // kImpossible where all are
  int32_t first_largest() const;               // its lowest id

  // The n best possible candidates, or all where there are fewer, in no order.
  void best(size_t n, std::vector<Candidate>& candidates);

  // The candidates whose score is at least `floor`, by id; impossible ones never.
  void at_least(double floor, std::vector<Candidate>& candidates) const;

 private:
  std::span<const float> scores_;
  std::vector<float> maxima_, scratch_;
  float largest_ = kImpossible;
};

// Sum over a block of exp((score - largest) / temperature).
double block_exp_sum(const float* block, float largest, float temperature);

// Natural log of the sum of exp(score - largest) over all scores: log-probabilities are score - largest - this.
double log_exp_sum(std::span<const float> scores, float largest);

}  // namespace t5g2
