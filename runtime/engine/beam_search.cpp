#include "beam_search.h"

#include <algorithm>
#include <cmath>

#include "error.h"
#include "logits_processors.h"
#include "logprobs.h"

namespace t5g2 {

void check(const BeamOptions& options) {
  if (options.beams < 1 || options.beams > kMaxBeams) misuse("beams: ", options.beams, "; give 1 to ", kMaxBeams);
  if (!(std::fabs(options.length_penalty) <= 10)) misuse("length_penalty: ", options.length_penalty, "; give -10 to 10");
  if (options.max_new_tokens < 1) misuse("max_new_tokens: ", options.max_new_tokens, "; give 1 or more");
  if (options.min_new_tokens < 0 || options.min_new_tokens > options.max_new_tokens) {
    misuse("min_new_tokens: ", options.min_new_tokens, "; give 0 to max_new_tokens (", options.max_new_tokens, ")");
  }
  check_repetition_penalty(options.repetition_penalty);
  check_no_repeat_ngram(options.no_repeat_ngram);
}

BeamSearch::BeamSearch(const BeamOptions& options, std::vector<int32_t> stop_ids, std::vector<int32_t> suppressed,
                       std::vector<int32_t> start, int32_t vocab)
    : options_(options),
      stop_ids_(std::move(stop_ids)),
      suppressed_(std::move(suppressed)),
      start_(start.size()),
      vocab_(size_t(vocab)) {
  check(options_);
  if (vocab < 1) misuse("vocab: ", vocab, "; give 1 or more");
  check_ids("stop_ids", stop_ids_, vocab_);
  check_ids("suppressed_ids", suppressed_, vocab_);
  check_ids("start", start, vocab_);
  std::sort(stop_ids_.begin(), stop_ids_.end());
  stop_ids_.erase(std::unique(stop_ids_.begin(), stop_ids_.end()), stop_ids_.end());
  beams_.push_back({std::move(start), 0});
  fed_.assign(1, false);
}

void BeamSearch::feed(size_t beam, std::span<float> logits) {
  if (beam >= live() || fed_[beam]) {
    misuse("beam ", beam, ": fed already or not live; feed each of ", live(), " live beams once");
  }
  if (logits.size() != vocab_) misuse("logits: ", logits.size(), " of them; give ", vocab_);
  const auto& [target, score] = beams_[beam];
  log_softmax(logits);
  if (options_.repetition_penalty != 1) penalize_repetition(logits, target, options_.repetition_penalty);
  if (options_.no_repeat_ngram > 0) forbid_repeated_ngrams(logits, target, size_t(options_.no_repeat_ngram));
  if (generated_ < options_.min_new_tokens) forbid(logits, stop_ids_);
  forbid(logits, suppressed_);
  maxima_.update(logits);
  // A step keeps the best `beams` continuations, and as many that do not stop: at worst all from one beam.
  maxima_.best(size_t(options_.beams) + stop_ids_.size(), candidates_);
  for (const Candidate& candidate : candidates_) continuations_.push_back({score + candidate.score, beam, candidate.id});
  fed_[beam] = true;
}

std::vector<size_t> BeamSearch::advance() {
  if (done_ || std::find(fed_.begin(), fed_.end(), false) != fed_.end()) misuse("advance: feed every live beam first");
  std::sort(continuations_.begin(), continuations_.end(), [](const Continuation& a, const Continuation& b) {
    return a.score != b.score ? a.score > b.score : a.beam != b.beam ? a.beam < b.beam : a.id < b.id;
  });
  ++generated_;
  const bool last = generated_ == options_.max_new_tokens;
  const size_t width = size_t(options_.beams);
  std::vector<Beam> next;
  std::vector<size_t> parents;
  for (size_t i = 0; i < continuations_.size(); ++i) {
    const Continuation& continuation = continuations_[i];
    const bool stopped = is_stop(continuation.id);
    if (stopped || last) {
      if (i < width) end(continuation, stopped);  // one that is not among the best is dropped, not kept back
    } else if (next.size() < width) {
      next.push_back({beams_[continuation.beam].target, continuation.score});
      next.back().target.push_back(continuation.id);
      parents.push_back(continuation.beam);
    }
  }
  if (next.empty() && ended_.empty()) fail("every token is suppressed or has probability 0; suppress fewer");
  continuations_.clear();
  beams_ = std::move(next);
  fed_.assign(beams_.size(), false);
  // "Can become better" is judged as if the likeliest beam ended now.
  done_ = beams_.empty() || (ended_.size() == width &&
                             (options_.early_stopping || !(penalized(beams_[0].score) > ended_.back().score)));
  if (done_) parents.clear();
  return parents;
}

// By the length that all targets have by now.
double BeamSearch::penalized(double score) const {
  return score / std::pow(double(generated_), double(options_.length_penalty));
}

bool BeamSearch::is_stop(int32_t id) const { return std::binary_search(stop_ids_.begin(), stop_ids_.end(), id); }

// Keeps the target among the ended ones if it is one of the best.
void BeamSearch::end(const Continuation& continuation, bool stopped) {
  const double score = penalized(continuation.score);
  const auto place = std::find_if(ended_.begin(), ended_.end(), [&](const Hypothesis& other) { return other.score < score; });
  if (place == ended_.end() && ended_.size() == size_t(options_.beams)) return;
  const std::vector<int32_t>& target = beams_[continuation.beam].target;
  Hypothesis hypothesis{{target.begin() + ptrdiff_t(start_), target.end()}, score, stopped};
  if (!stopped) hypothesis.ids.push_back(continuation.id);
  ended_.insert(place, std::move(hypothesis));
  if (ended_.size() > size_t(options_.beams)) ended_.pop_back();
}

}  // namespace t5g2
