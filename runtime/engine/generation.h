// One target in the making: greedy, sampled, or the best of a beam search.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "beam_search.h"
#include "engine.h"
#include "error.h"
#include "logprobs.h"
#include "sampler.h"
#include "text_stream.h"

namespace t5g2 {

// See t5g2_generation_options in t5g2.h.
struct GenerationOptions {
  int32_t max_new_tokens = 0, min_new_tokens = 0;
  SamplingOptions sampling;
  int64_t seed = -1;
  int32_t beams = 1;
  float length_penalty = 1;
  bool early_stopping = false;
  std::vector<int32_t> prefix;
  std::vector<int32_t> stop_ids;  // beside the bundle's
  std::vector<std::string> stop_strings;
  std::vector<int32_t> suppressed;
  bool suppress_unused = true;
  int32_t logprobs = -1;
};

enum class Finish { kNone, kStop, kLength, kCancelled };

struct Token {
  int32_t id = -1;  // none, only text that had been held back
  std::string text;
  TopLogprobs logprobs{std::numeric_limits<float>::quiet_NaN(), {}, {}};  // unless asked for
};

// A finished target, or one so far.
struct Target {
  std::vector<int32_t> ids;
  std::string text;
  Finish finish = Finish::kNone;
  double score = 0;
};

class Generation {
 public:
  // Throws Error naming the option that is wrong.
  Generation(std::shared_ptr<Engine> engine, std::shared_ptr<const EncodedSource> source, GenerationOptions options);

  // The next token; none once the target has ended. Throws Error, and again whenever it is called after that.
  std::optional<Token> next();

  // From any thread.
  void cancel() { cancelled_ = true; }

  // Best first; one, and as many as beams once they are found.
  const std::vector<Target>& targets() const { return targets_; }

 private:
  void check() const;
  std::optional<Token> next_chosen();
  std::optional<Token> next_found();
  std::optional<Token> finish(Finish reason);
  std::string show(int32_t id);
  BeamOptions beam_options() const;
  void search();
  std::vector<Pages> fan_out(std::vector<Pages> caches, const std::vector<size_t>& parents) const;
  void show_best();
  bool stopped_by_cancel();

  const std::shared_ptr<Engine> engine_;
  const std::shared_ptr<const EncodedSource> source_;
  GenerationOptions options_;
  std::vector<int32_t> fed_;  // BOS, prefix, and what was chosen: all ids so far
  size_t position_ = 0;       // how many of them the decoder has read
  Pages cache_;
  std::optional<Sampler> sampler_;
  std::optional<TextStream> stream_;
  TextStop stop_;
  std::vector<float> raw_;         // logits before the sampler, where log-probabilities are asked for
  std::vector<Token> found_;       // of the best beam
  size_t shown_ = 0;               // how many of them were returned
  std::vector<Target> targets_{1};
  std::atomic<bool> cancelled_ = false;
  std::optional<Error> error_;
};

}  // namespace t5g2
