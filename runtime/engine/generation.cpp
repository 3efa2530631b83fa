#include "generation.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "error.h"

namespace t5g2 {
namespace {

constexpr int32_t kMostLogprobs = 100;

TextStop text_stop(const Engine& engine, const std::vector<std::string>& strings) {
  for (const std::string& s : strings) {
    if (s.empty()) misuse("stop: an empty string; leave it out");
  }
  if (!strings.empty() && !engine.has_tokenizer()) misuse("stop: this bundle has no tokenizer, so no text; give stop ids");
  return TextStop(strings);
}

}  // namespace

Generation::Generation(std::shared_ptr<Engine> engine, std::shared_ptr<const EncodedSource> source, GenerationOptions options)
    : engine_(std::move(engine)),
      source_(std::move(source)),
      options_(std::move(options)),
      stop_(text_stop(*engine_, options_.stop_strings)) {
  const Manifest& m = engine_->manifest();
  const int32_t room = m.max_target - int32_t(std::min<size_t>(options_.prefix.size(), size_t(m.max_target)));
  if (room < 1) {
    misuse("prefix: ", options_.prefix.size(), " tokens, and this bundle's targets take ", m.max_target,
           " in all; shorten it, or export with a larger --max-target");
  }
  if (options_.max_new_tokens < 0 || options_.max_new_tokens > room) {
    misuse("max_new_tokens: ", options_.max_new_tokens, "; give 1 to ", room, ", what the bundle's --max-target leaves");
  }
  if (!options_.max_new_tokens) options_.max_new_tokens = room;
  check();
  options_.stop_ids.insert(options_.stop_ids.end(), m.tokens.eos.begin(), m.tokens.eos.end());
  if (options_.suppress_unused) {
    for (int32_t id : engine_->unused_ids()) {
      if (std::find(options_.stop_ids.begin(), options_.stop_ids.end(), id) == options_.stop_ids.end()) {
        options_.suppressed.push_back(id);
      }
    }
  }
  fed_ = options_.prefix;
  fed_.insert(fed_.begin(), m.tokens.bos);
  const uint64_t seed = options_.seed < 0 ? random_seed() : uint64_t(options_.seed);
  sampler_.emplace(options_.sampling, seed, options_.suppressed, m.vocab_size);
  if (engine_->has_tokenizer()) stream_.emplace(engine_->tokenizer(), true);
  if (options_.beams == 1) cache_ = engine_->new_cache();
}

void Generation::check() const {
  const GenerationOptions& o = options_;
  const int32_t vocab = engine_->manifest().vocab_size;
  if (o.min_new_tokens < 0 || o.min_new_tokens > o.max_new_tokens) {
    misuse("min_new_tokens: ", o.min_new_tokens, "; give 0 to max_new_tokens (", o.max_new_tokens, ")");
  }
  t5g2::check(o.sampling);
  for (const auto& [name, ids] : {std::pair{"prefix", &o.prefix}, {"stop", &o.stop_ids}, {"suppressed", &o.suppressed}}) {
    for (int32_t id : *ids) {
      if (id < 0 || id >= vocab) misuse(name, ": id ", id, " is outside the vocabulary of ", vocab);
    }
  }
  if (o.logprobs < -1 || o.logprobs > kMostLogprobs) {
    misuse("logprobs: ", o.logprobs, "; give -1 (none) to ", kMostLogprobs);
  }
  t5g2::check(beam_options());
  if (o.beams == 1) return;
  if (o.sampling.temperature != 0) misuse("temperature: beams do not sample; give 0, or beams 1");
  if (!o.stop_strings.empty()) misuse("stop: strings do not end beams; give stop ids, or beams 1");
}

std::optional<Token> Generation::next() {
  if (error_) throw *error_;
  try {
    if (targets_[0].finish != Finish::kNone && found_.empty()) return std::nullopt;
    if (stopped_by_cancel()) return std::nullopt;
    return options_.beams > 1 ? next_found() : next_chosen();
  } catch (const Error& error) {
    error_ = error;
    throw;
  } catch (const std::exception& error) {
    error_ = Error(Error::Kind::kInput, join("generating failed (", error.what(), ")"));
    throw *error_;
  }
}

bool Generation::stopped_by_cancel() {
  if (cancelled_) {
    targets_[0].finish = Finish::kCancelled;
    found_.clear();
  }
  return cancelled_;
}

// Feeds what the decoder has not read, and chooses from the last row.
std::optional<Token> Generation::next_chosen() {
  Target& target = targets_[0];
  if (target.ids.size() == size_t(options_.max_new_tokens)) return finish(Finish::kLength);
  const size_t vocab = size_t(engine_->manifest().vocab_size);
  static const std::vector<int32_t> none;
  const bool too_short = target.ids.size() < size_t(options_.min_new_tokens);
  Token token;
  const auto unread = std::span<const int32_t>(fed_).subspan(position_);
  engine_->feed(*source_, cache_, unread, position_, [&](size_t first, std::span<float> logits) {
    if (first + logits.size() / vocab < unread.size()) return !cancelled_;
    const auto last = logits.last(vocab);
    if (options_.logprobs >= 0) raw_.assign(last.begin(), last.end());
    token.id = sampler_->sample(last, fed_, too_short ? options_.stop_ids : none);
    return true;
  });
  position_ = fed_.size();
  if (stopped_by_cancel()) return std::nullopt;
  if (options_.logprobs >= 0) token.logprobs = top_logprobs(raw_, token.id, options_.logprobs);
  if (std::find(options_.stop_ids.begin(), options_.stop_ids.end(), token.id) != options_.stop_ids.end()) {
    return finish(Finish::kStop);
  }
  fed_.push_back(token.id);
  target.ids.push_back(token.id);
  token.text = show(token.id);
  if (stop_.stopped()) target.finish = Finish::kStop;
  return token;
}

// The text that an id makes safe to show.
std::string Generation::show(int32_t id) {
  if (!stream_) return "";
  std::string text = stop_.push(stream_->push(id));
  targets_[0].text += text;
  return text;
}

// Ends the target; returns the text that was held back, if any.
std::optional<Token> Generation::finish(Finish reason) {
  Token token;
  if (stream_) token.text = stop_.push(stream_->flush());
  token.text += stop_.flush();
  targets_[0].text += token.text;
  targets_[0].finish = stop_.stopped() ? Finish::kStop : reason;
  if (token.text.empty()) return std::nullopt;
  return token;
}

std::optional<Token> Generation::next_found() {
  if (targets_[0].finish == Finish::kNone) search();
  if (targets_[0].finish == Finish::kCancelled || shown_ == found_.size()) {
    found_.clear();
    return std::nullopt;
  }
  return std::move(found_[shown_++]);
}

BeamOptions Generation::beam_options() const {
  return {.beams = options_.beams,
          .length_penalty = options_.length_penalty,
          .early_stopping = options_.early_stopping,
          .max_new_tokens = options_.max_new_tokens,
          .min_new_tokens = options_.min_new_tokens,
          .repetition_penalty = options_.sampling.repetition_penalty,
          .no_repeat_ngram = options_.sampling.no_repeat_ngram};
}

void Generation::search() {
  const Manifest& m = engine_->manifest();
  BeamSearch beams(beam_options(), options_.stop_ids, options_.suppressed, fed_, m.vocab_size);
  std::vector<Pages> caches(1);
  caches[0] = engine_->new_cache();
  // All beams begin alike: one reads what stands before the last id, and the others take its cache over.
  const auto before = std::span<const int32_t>(fed_).first(fed_.size() - 1);
  engine_->feed(*source_, caches[0], before, 0, [](size_t, std::span<float>) { return true; });
  caches = fan_out(std::move(caches), std::vector<size_t>(beams.live(), 0));
  while (!beams.done()) {
    for (size_t i = 0; i < beams.live(); ++i) {
      const std::vector<int32_t>& ids = beams.target(i);
      const auto last = std::span<const int32_t>(ids).last(1);
      engine_->feed(*source_, caches[i], last, ids.size() - 1, [&](size_t, std::span<float> logits) {
        beams.feed(i, logits);
        return true;
      });
      if (stopped_by_cancel()) return;
    }
    caches = fan_out(std::move(caches), beams.advance());
  }
  targets_.clear();
  for (const auto& found : beams.results()) {
    const std::string text = engine_->has_tokenizer() ? engine_->tokenizer().decode(found.ids, true) : "";
    targets_.push_back({found.ids, text, found.stopped ? Finish::kStop : Finish::kLength, found.score});
  }
  show_best();
}

// Child i continues parents[i]: the last child of a parent takes its cache over, the others copy it.
std::vector<Pages> Generation::fan_out(std::vector<Pages> caches, const std::vector<size_t>& parents) const {
  std::vector<size_t> children(caches.size());
  for (size_t parent : parents) ++children[parent];
  std::vector<Pages> out(parents.size());
  for (size_t i = 0; i < parents.size(); ++i) {
    Pages& parent = caches[parents[i]];
    if (--children[parents[i]] == 0) {
      out[i] = std::move(parent);
    } else {
      out[i] = engine_->new_cache();
      std::memcpy(out[i].data(), parent.data(), parent.size());
    }
  }
  return out;
}

// The tokens of the best beam, for the calls to come.
void Generation::show_best() {
  const Target& best = targets_[0];
  std::string held;
  for (int32_t id : best.ids) {
    Token token;
    token.id = id;
    if (stream_) token.text = stream_->push(id);
    found_.push_back(std::move(token));
  }
  if (stream_) held = stream_->flush();
  if (options_.logprobs >= 0) {
    std::vector<int32_t> ids = fed_;
    ids.insert(ids.end(), best.ids.begin(), best.ids.end());
    const size_t vocab = size_t(engine_->manifest().vocab_size), first = fed_.size() - 1;
    ids.pop_back();
    Pages cache = engine_->new_cache();
    engine_->feed(*source_, cache, ids, 0, [&](size_t at, std::span<float> logits) {
      for (size_t i = std::max(at, first); i < at + logits.size() / vocab; ++i) {
        Token& token = found_[i - first];
        token.logprobs = top_logprobs(logits.subspan((i - at) * vocab, vocab), token.id, options_.logprobs);
      }
      return true;
    });
  }
  if (!held.empty()) {
    Token token;
    token.text = std::move(held);
    found_.push_back(std::move(token));
  }
}

}  // namespace t5g2
