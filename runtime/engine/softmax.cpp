#include "softmax.h"

#include <cmath>
#include <functional>

#include "error.h"

namespace t5g2 {
namespace {

float block_max(const float* block) {
  constexpr size_t kLanes = 8;
  float lanes[kLanes];
  std::copy_n(block, kLanes, lanes);
  for (size_t i = kLanes; i < kBlock; i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] = block[i + j] > lanes[j] ? block[i + j] : lanes[j];
  }
  return *std::max_element(lanes, lanes + kLanes);
}

}  // namespace

void check_numbers(std::span<const float> scores) {
  bool sound = true;
  each_block(scores, [&](size_t, const float* block) {
    int32_t unsound = 0;
    for (size_t i = 0; i < kBlock; ++i) unsound |= !(block[i] <= std::numeric_limits<float>::max());
    sound &= !unsound;
  });
  if (!sound) fail("the model's logits hold NaN or infinity; the bundle is damaged or its precision too low");
}

void BlockMaxima::update(std::span<const float> scores) {
  scores_ = scores;
  maxima_.resize((scores.size() + kBlock - 1) / kBlock);
  each_block(scores, [&](size_t i, const float* block) { maxima_[i] = block_max(block); });
  largest_ = kImpossible;
  for (float maximum : maxima_) largest_ = std::max(largest_, maximum);
}

int32_t BlockMaxima::first_largest() const {
  const size_t block = size_t(std::find(maxima_.begin(), maxima_.end(), largest_) - maxima_.begin());
  return int32_t(std::find(scores_.begin() + ptrdiff_t(block * kBlock), scores_.end(), largest_) - scores_.begin());
}

void BlockMaxima::best(size_t n, std::vector<Candidate>& candidates) {
  float floor = kImpossible;
  if (n > 0 && n < maxima_.size()) {  // n blocks reach the n-th largest maximum, so at least n scores do
    scratch_ = maxima_;
    std::nth_element(scratch_.begin(), scratch_.begin() + ptrdiff_t(n - 1), scratch_.end(), std::greater<>());
    floor = scratch_[n - 1];
  }
  at_least(floor, candidates);
  if (n < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + ptrdiff_t(n), candidates.end(), likelier);
    candidates.resize(n);
  }
}

void BlockMaxima::at_least(double floor, std::vector<Candidate>& candidates) const {
  candidates.clear();
  for (size_t block = 0; block < maxima_.size(); ++block) {
    if (maxima_[block] < floor || maxima_[block] == kImpossible) continue;
    const size_t end = std::min((block + 1) * kBlock, scores_.size());
    for (size_t i = block * kBlock; i < end; ++i) {
      if (scores_[i] >= floor && scores_[i] > kImpossible) candidates.push_back({scores_[i], int32_t(i)});
    }
  }
}

double block_exp_sum(const float* block, float largest, float temperature) {
  float terms[kBlock];
  for (size_t i = 0; i < kBlock; ++i) terms[i] = exp_nonpositive((block[i] - largest) / temperature);
  double lanes[4] = {};
  for (size_t i = 0; i < kBlock; i += 4) {
    for (size_t j = 0; j < 4; ++j) lanes[j] += double(terms[i + j]);
  }
  return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

double log_exp_sum(std::span<const float> scores, float largest) {
  double rest = -1;  // the largest adds exactly 1, beside which a small rest would be lost
  each_block(scores, [&](size_t, const float* block) { rest += block_exp_sum(block, largest, 1); });
  return std::log1p(rest);
}

}  // namespace t5g2
