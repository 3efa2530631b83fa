// t5g2 for C++20: the functions of t5g2.h, which says what they do, as objects that free themselves. Header-only.
//
//     auto engine = t5g2::Engine::open("out/nano-int4");
//     if (!engine) return puts(engine.error().message.c_str());
//     auto session = t5g2::Session::make(*engine, {.text = "ISO date: 3 March 2021"});
//     if (!session) ...
//     auto generation = t5g2::Generation::start(*session, {.max_new_tokens = 32});
//     if (!generation) ...
//     for (;;) {
//       auto token = generation->next();
//       if (!token) return puts(token.error().message.c_str());
//       if (!*token) break;
//       std::cout << (*token)->text << std::flush;
//     }
//
// Names, defaults, threads and lifetimes are those of t5g2.h. Nothing throws but for too little memory of the caller's own.

#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "t5g2.h"

namespace t5g2 {
inline namespace v1 {  // apart from what the engine, which may be linked statically, calls the same

// ---- errors --------------------------------------------------------------------------------------------------------

struct Failure {
  t5g2_status status;   // T5G2_ERROR or T5G2_USAGE
  std::string message;  // one line
};

// A value or why there is none. `value`, `*` and `->` need ok(), `error` needs the opposite.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : held_(std::in_place_index<0>, std::move(value)) {}
  Result(Failure failure) : held_(std::in_place_index<1>, std::move(failure)) {}

  bool ok() const { return held_.index() == 0; }
  explicit operator bool() const { return ok(); }
  const Failure& error() const { return *std::get_if<1>(&held_); }

  T& value() & { return *std::get_if<0>(&held_); }
  const T& value() const& { return *std::get_if<0>(&held_); }
  T&& value() && { return std::move(value()); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(value()); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<T, Failure> held_;
};

using Done = std::monostate;  // the value of what only succeeds or fails

namespace detail {

template <class T, void (*free)(T*)>
struct Free {
  void operator()(T* object) const { free(object); }
};

template <class T, void (*free)(T*)>
using Handle = std::unique_ptr<T, Free<T, free>>;

inline Failure failure(t5g2_status status) { return {status, t5g2_error()}; }

// What a function of t5g2.h writes to an output buffer: call(buffer, capacity, count). room: elements to try first.
template <class T, class Call>
Result<std::vector<T>> filled(size_t room, const Call& call) {
  std::vector<T> out(room);
  for (;;) {
    size_t count = 0;
    if (const t5g2_status status = call(out.data(), out.size(), &count)) return failure(status);
    const bool whole = count <= out.size();
    out.resize(count);
    if (whole) return out;
  }
}

}  // namespace detail

// ---- engine --------------------------------------------------------------------------------------------------------

struct EngineOptions {
  int32_t threads = 0;
  std::optional<std::string> cache_folder = {};  // none: the default; "": nowhere
};

using EngineInfo = t5g2_engine_info;

// Copies of an engine and of a session are the same one.
class Engine {
 public:
  static Result<Engine> open(const std::string& bundle, const EngineOptions& options = {}) {
    t5g2_engine_options o;
    t5g2_engine_defaults(&o);
    o.threads = options.threads;
    if (options.cache_folder) o.cache_folder = options.cache_folder->c_str();
    t5g2_engine* engine;
    if (const t5g2_status status = t5g2_engine_open(bundle.c_str(), &o, &engine)) return detail::failure(status);
    return Engine(engine);
  }

  EngineInfo info() const {
    EngineInfo info{};
    info.size = sizeof(info);
    t5g2_engine_get_info(get(), &info);
    return info;
  }
  std::string_view manifest() const { return t5g2_engine_manifest(get()); }
  std::string_view kernels() const { return t5g2_engine_kernels(get()); }

  Result<std::vector<int32_t>> source_ids(std::string_view text, size_t image_count = 0) const {
    return detail::filled<int32_t>(text.size() + 1, [&](int32_t* ids, size_t capacity, size_t* count) {
      return t5g2_source_ids(get(), text.data() ? text.data() : "", text.size(), image_count, ids, capacity, count);
    });
  }
  Result<std::vector<int32_t>> target_ids(std::string_view text) const {
    return detail::filled<int32_t>(text.size(), [&](int32_t* ids, size_t capacity, size_t* count) {
      return t5g2_target_ids(get(), text.data() ? text.data() : "", text.size(), ids, capacity, count);
    });
  }
  Result<std::string> text_of_ids(std::span<const int32_t> ids, bool skip_special = true) const {
    auto text = detail::filled<char>(8 * ids.size() + 1, [&](char* out, size_t capacity, size_t* count) {
      return t5g2_text_of_ids(get(), ids.data(), ids.size(), skip_special, out, capacity, count);
    });
    if (!text) return text.error();
    return std::string(text->begin(), text->end());
  }

  t5g2_engine* get() const { return engine_.get(); }

 private:
  explicit Engine(t5g2_engine* engine) : engine_(engine, t5g2_engine_free) {}

  std::shared_ptr<t5g2_engine> engine_;
};

// ---- sessions ------------------------------------------------------------------------------------------------------

using Image = t5g2_image;

// Views of what a session is made from: text or ids, and images or pixels.
struct Source {
  std::optional<std::string_view> text = {};
  std::span<const int32_t> ids = {};
  std::span<const Image> images = {};
  std::span<const float> pixels = {};  // [images, 3, image_side, image_side]
};

class Session {
 public:
  static Result<Session> make(const Engine& engine, const Source& source) {
    t5g2_source s{};
    if (source.text) {
      s.text = source.text->empty() ? "" : source.text->data();  // a length of 0 is one that is not set
      s.text_length = source.text->size();
    }
    static constexpr int32_t kNoIds = 0;
    if (!source.text || !source.ids.empty()) s.ids = source.ids.empty() ? &kNoIds : source.ids.data();
    s.id_count = source.ids.size();
    if (!source.images.empty()) s.images = source.images.data();
    s.image_count = source.images.size();
    if (!source.pixels.empty()) {
      const size_t side = size_t(std::max(engine.info().image_side, 1)), image = 3 * side * side;
      if (source.pixels.size() % image) return Failure{T5G2_USAGE, "pixels: give [images, 3, image_side, image_side] of them"};
      s.pixels = source.pixels.data();
      if (source.images.empty()) s.image_count = source.pixels.size() / image;
    }
    t5g2_session* session;
    if (const t5g2_status status = t5g2_session_new(engine.get(), &s, &session)) return detail::failure(status);
    return Session(session);
  }

  static Result<Session> load(const Engine& engine, const std::string& path) {
    t5g2_session* session;
    if (const t5g2_status status = t5g2_session_load(engine.get(), path.c_str(), &session)) return detail::failure(status);
    return Session(session);
  }

  Result<Done> save(const std::string& path) const {
    if (const t5g2_status status = t5g2_session_save(get(), path.c_str())) return detail::failure(status);
    return Done();
  }

  Result<std::vector<int32_t>> ids() const {
    return detail::filled<int32_t>(0, [&](int32_t* ids, size_t capacity, size_t* count) {
      return t5g2_session_ids(get(), ids, capacity, count);
    });
  }
  Result<std::vector<float>> states(bool pooled = false) const {
    return detail::filled<float>(0, [&](float* states, size_t capacity, size_t* count) {
      return t5g2_session_states(get(), pooled, states, capacity, count);
    });
  }
  Result<std::vector<float>> logits(std::span<const int32_t> target_ids) const {
    return detail::filled<float>(0, [&](float* logits, size_t capacity, size_t* count) {
      return t5g2_session_logits(get(), target_ids.data(), target_ids.size(), logits, capacity, count);
    });
  }
  Result<std::vector<float>> score(std::span<const int32_t> target_ids) const {
    return detail::filled<float>(target_ids.size(), [&](float* logprobs, size_t capacity, size_t* count) {
      return t5g2_session_score(get(), target_ids.data(), target_ids.size(), logprobs, capacity, count);
    });
  }

  t5g2_session* get() const { return session_.get(); }

 private:
  explicit Session(t5g2_session* session) : session_(session, t5g2_session_free) {}

  std::shared_ptr<t5g2_session> session_;
};

// ---- generation ----------------------------------------------------------------------------------------------------

struct GenerationOptions {
  int32_t max_new_tokens = 0;
  int32_t min_new_tokens = 0;
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  int32_t no_repeat_ngram = 0;
  int64_t seed = -1;
  int32_t beams = 1;
  float length_penalty = 1;
  bool early_stopping = false;
  std::string prefix_text = {};
  std::vector<int32_t> prefix_ids = {};
  std::vector<int32_t> stop_ids = {};
  std::vector<std::string> stop_strings = {};
  std::vector<int32_t> suppressed_ids = {};
  bool suppress_unused = true;
  int32_t logprobs = -1;
};

// Views into the generation, valid until the next call with it.
struct Token {
  int32_t id;
  std::string_view text;
  float logprob;
  std::span<const int32_t> top_ids;
  std::span<const float> top_logprobs;
};

struct Target {
  std::string_view text;
  std::span<const int32_t> ids;
  t5g2_finish finish;
  double score;
};

class Generation {
 public:
  static Result<Generation> start(const Session& session, const GenerationOptions& options = {}) {
    std::vector<const char*> strings;
    for (const std::string& string : options.stop_strings) {
      if (string.find('\0') != string.npos) return Failure{T5G2_USAGE, "stop_strings: one holds a NUL; leave it out"};
      strings.push_back(string.c_str());
    }
    t5g2_generation_options o;
    t5g2_generation_defaults(&o);
    o.max_new_tokens = options.max_new_tokens;
    o.min_new_tokens = options.min_new_tokens;
    o.temperature = options.temperature;
    o.top_k = options.top_k;
    o.top_p = options.top_p;
    o.min_p = options.min_p;
    o.repetition_penalty = options.repetition_penalty;
    o.no_repeat_ngram = options.no_repeat_ngram;
    o.seed = options.seed;
    o.beams = options.beams;
    o.length_penalty = options.length_penalty;
    o.early_stopping = options.early_stopping;
    if (!options.prefix_text.empty()) o.prefix_text = options.prefix_text.c_str();
    o.prefix_text_length = options.prefix_text.size();
    o.prefix_ids = options.prefix_ids.data();
    o.prefix_id_count = options.prefix_ids.size();
    o.stop_ids = options.stop_ids.data();
    o.stop_id_count = options.stop_ids.size();
    o.stop_strings = strings.data();
    o.stop_string_count = strings.size();
    o.suppressed_ids = options.suppressed_ids.data();
    o.suppressed_id_count = options.suppressed_ids.size();
    o.suppress_unused = options.suppress_unused;
    o.logprobs = options.logprobs;
    t5g2_generation* generation;
    if (const t5g2_status status = t5g2_generation_start(session.get(), &o, &generation)) return detail::failure(status);
    return Generation(generation);
  }

  // Nothing once the target has ended or was cancelled; `result` says which.
  Result<std::optional<Token>> next() {
    t5g2_token t;
    const t5g2_status status = t5g2_generation_next(get(), &t);
    if (status < 0) return detail::failure(status);
    if (status != T5G2_OK) return std::optional<Token>();
    return std::optional<Token>(
        {t.id, {t.text, t.text_length}, t.logprob, {t.top_ids, t.top_count}, {t.top_logprobs, t.top_count}});
  }

  void cancel() const { t5g2_generation_cancel(get()); }  // from any thread

  Result<Target> result(size_t index = 0) const {
    t5g2_result r;
    if (const t5g2_status status = t5g2_generation_result(get(), index, &r)) return detail::failure(status);
    return Target{{r.text, r.text_length}, {r.ids, r.id_count}, r.finish, r.score};
  }

  t5g2_generation* get() const { return generation_.get(); }

 private:
  explicit Generation(t5g2_generation* generation) : generation_(generation) {}

  detail::Handle<t5g2_generation, t5g2_generation_free> generation_;
};

}  // namespace v1
}  // namespace t5g2
