// Beam search: the best targets that a search over several at a time finds.
//
// Gives what transformers' generate(num_beams=..., do_sample=False) gives, and knows nothing of the model:
//
//     BeamSearch search(options, stop_ids, suppressed, {bos}, vocab);
//     while (!search.done()) {
//       for (size_t i = 0; i < search.live(); ++i) search.feed(i, logits after search.target(i));
//       caches = those of search.advance();
//     }

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "softmax.h"

namespace t5g2 {

inline constexpr int32_t kMaxBeams = 64;

struct BeamOptions {
  int32_t beams = 1;             // 1 to kMaxBeams
  float length_penalty = 1;      // a target's score is its log-probability / length^penalty; -10 to 10
  bool early_stopping = false;   // stop when `beams` targets ended, rather than when none can become better
  int32_t max_new_tokens = 1;    // at least 1; a stop id counts as one
  int32_t min_new_tokens = 0;    // no stop id before that many
  float repetition_penalty = 1;  // on log-probabilities, as SamplingOptions' is on logits
  int32_t no_repeat_ngram = 0;   // as SamplingOptions'
};

// Throws Error(kUsage) naming the option that is out of range.
void check(const BeamOptions& options);

class BeamSearch {
 public:
  // stop_ids: any of them ends a target. suppressed: ids that are never chosen. start: what every target begins with, BOS and
  // prefix. Throws Error(kUsage) naming what is out of range.
  BeamSearch(const BeamOptions& options, std::vector<int32_t> stop_ids, std::vector<int32_t> suppressed,
             std::vector<int32_t> start, int32_t vocab);

  // How many beams the next step needs logits of: 1 at the start, then as a rule options.beams, 0 when done.
  size_t live() const { return done_ ? 0 : beams_.size(); }
  bool done() const { return done_; }

  // What the beam's target holds: start and generated ids. The likeliest beam is 0.
  const std::vector<int32_t>& target(size_t beam) const { return beams_[beam].target; }

  // logits: [vocab] after the beam's target; overwritten. Each live beam once, in any order. Throws Error where they hold NaN
  // or +infinity.
  void feed(size_t beam, std::span<float> logits);

  // Takes the step, once all live beams are fed. New live beam i continues old beam [i] of what is returned, with one id more;
  // empty when done. Throws Error where suppression left nothing to choose from.
  std::vector<size_t> advance();

  struct Hypothesis {
    std::vector<int32_t> ids;  // generated, without the stop id
    double score;              // sum of log-probabilities / length^penalty, the stop id included in both
    bool stopped;              // by a stop id, not by max_new_tokens
  };
  // The ended targets, best first: options.beams of them when done, fewer before, and where suppression leaves fewer.
  const std::vector<Hypothesis>& results() const { return ended_; }

 private:
  struct Beam {
    std::vector<int32_t> target;
    double score;  // sum of log-probabilities
  };
  struct Continuation {
    double score;
    size_t beam;
    int32_t id;
  };
  double penalized(double score) const;
  bool is_stop(int32_t id) const;
  void end(const Continuation& continuation, bool stopped);

  BeamOptions options_;
  std::vector<int32_t> stop_ids_, suppressed_;  // stop_ids_ sorted
  size_t start_, vocab_;                        // lengths
  int32_t generated_ = 0;                       // ids in each live beam after `start`
  bool done_ = false;
  std::vector<Beam> beams_;                     // likeliest first
  std::vector<bool> fed_;
  std::vector<Continuation> continuations_;
  std::vector<Hypothesis> ended_;
  BlockMaxima maxima_;
  std::vector<Candidate> candidates_;
};

}  // namespace t5g2
