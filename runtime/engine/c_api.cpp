// The C interface over the engine. Nothing thrown gets out of here.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <string>

#include "engine.h"
#include "error.h"
#include "generation.h"
#include "image.h"
#include "session_file.h"
#include "t5g2.h"

struct t5g2_engine {
  std::shared_ptr<t5g2::Engine> engine;
};

struct t5g2_session {
  std::shared_ptr<t5g2::Engine> engine;
  std::shared_ptr<const t5g2::EncodedSource> source;
};

struct t5g2_generation {
  t5g2::Generation generation;
  t5g2::Token token;  // what the last call returned
};

namespace {

using namespace t5g2;

thread_local std::string last_error;

t5g2_status failed(t5g2_status status, const char* message) {
  try {
    last_error = message;
  } catch (const std::bad_alloc&) {
    last_error.clear();
  }
  return status;
}

// Calls body, which returns a status; turns what it throws into one.
template <class Body>
t5g2_status guard(const Body& body) {
  try {
    return body();
  } catch (const Error& error) {
    return failed(error.kind() == Error::Kind::kUsage ? T5G2_USAGE : T5G2_ERROR, error.what());
  } catch (const std::bad_alloc&) {
    return failed(T5G2_ERROR, "not enough memory; close other programs, or ask for less (a smaller model, a shorter source)");
  } catch (const std::exception& error) {
    return failed(T5G2_ERROR, error.what());
  } catch (...) {
    return failed(T5G2_ERROR, "an unknown error; report it");
  }
}

template <class T>
T* needed(T* pointer, const char* name) {
  if (!pointer) misuse(name, ": is NULL");
  return pointer;
}

template <class T>
std::span<const T> list(const T* data, size_t count, const char* name) {
  if (count) needed(data, name);
  return {data, count};
}

std::string_view text_of(const char* text, size_t length) {
  needed(text, "text");
  return {text, length == T5G2_TO_NUL ? std::strlen(text) : length};
}

// Lengths inside structs are 0 where they are not set.
std::string_view text_in_struct(const char* text, size_t length) { return text_of(text, length ? length : T5G2_TO_NUL); }

// What `values` holds, as far as there is room.
template <class T>
void give(const T* values, size_t size, T* to, size_t capacity, size_t* count) {
  needed(count, "count");
  const auto given = list(to, capacity, "the output buffer");
  std::copy_n(values, std::min(size, given.size()), to);
  *count = size;
}

// The caller's options over the defaults: as many bytes of them as the caller knows.
template <class T>
T known(const T* given, void (*defaults)(T*)) {
  T options;
  defaults(&options);
  if (!given) return options;
  if (given->size < sizeof(size_t) || given->size > sizeof(T)) {
    misuse("options: size is ", given->size, " where ", sizeof(T), " is the most; fill them with their defaults first");
  }
  std::memcpy(&options, given, given->size);
  return options;
}

GenerationOptions options_of(const Engine& engine, const t5g2_generation_options& c) {
  GenerationOptions o;
  o.max_new_tokens = c.max_new_tokens;
  o.min_new_tokens = c.min_new_tokens;
  o.sampling.temperature = c.temperature;
  o.sampling.top_k = c.top_k;
  o.sampling.top_p = c.top_p;
  o.sampling.min_p = c.min_p;
  o.sampling.repetition_penalty = c.repetition_penalty;
  o.sampling.no_repeat_ngram = c.no_repeat_ngram;
  if (c.seed < -1) misuse("seed: ", c.seed, "; give 0 or more, or -1 for a new one each time");
  o.seed = c.seed;
  o.beams = c.beams;
  o.length_penalty = c.length_penalty;
  o.early_stopping = c.early_stopping;
  if (c.prefix_text && c.prefix_id_count) misuse("prefix: give prefix_text or prefix_ids, not both");
  if (c.prefix_text) {
    o.prefix = engine.tokenizer().encode(text_in_struct(c.prefix_text, c.prefix_text_length));
  } else {
    const auto ids = list(c.prefix_ids, c.prefix_id_count, "prefix_ids");
    o.prefix.assign(ids.begin(), ids.end());
  }
  const auto stops = list(c.stop_ids, c.stop_id_count, "stop_ids");
  o.stop_ids.assign(stops.begin(), stops.end());
  for (const char* string : list(c.stop_strings, c.stop_string_count, "stop_strings")) {
    o.stop_strings.emplace_back(needed(string, "stop_strings"));
  }
  const auto suppressed = list(c.suppressed_ids, c.suppressed_id_count, "suppressed_ids");
  o.suppressed.assign(suppressed.begin(), suppressed.end());
  o.suppress_unused = c.suppress_unused;
  o.logprobs = c.logprobs;
  return o;
}

// [images, 3, side, side]
std::vector<float> pixels_of(const Engine& engine, const t5g2_source& source) {
  const auto images = list(source.images, source.image_count, "images");
  if (images.empty()) return {};
  if (!engine.manifest().image) {
    fail("a bundle without vision cannot read images; export without --no-vision");
  }
  const ImageSettings& settings = *engine.manifest().image;
  const size_t size = 3 * size_t(settings.side) * size_t(settings.side);
  std::vector<float> pixels(images.size() * size);
  for (size_t i = 0; i < images.size(); ++i) {
    const t5g2_image& image = images[i];
    const ImageView view{needed(image.pixels, "images: pixels"), image.width, image.height, image.channels,
                         image.stride ? image.stride : size_t(std::max(image.width, 0)) * size_t(std::max(image.channels, 0))};
    to_pixels(view, settings, pixels.data() + i * size);
  }
  return pixels;
}

t5g2_session* new_session(const std::shared_ptr<Engine>& engine, EncodedSource source) {
  return new t5g2_session{engine, std::make_shared<const EncodedSource>(std::move(source))};
}

}  // namespace

extern "C" {

uint32_t t5g2_api_version(void) { return T5G2_API_VERSION; }

const char* t5g2_version(void) { return T5G2_VERSION; }

const char* t5g2_error(void) { return last_error.c_str(); }

void t5g2_engine_defaults(t5g2_engine_options* options) {
  if (options) {
    *options = {.size = sizeof(t5g2_engine_options), .threads = 0, .cache_folder = nullptr, .programs = nullptr};
  }
}

t5g2_status t5g2_engine_open(const char* bundle, const t5g2_engine_options* options, t5g2_engine** engine) {
  return guard([&] {
    needed(engine, "engine");
    const auto given = known(options, t5g2_engine_defaults);
    EngineOptions o;
    o.threads = given.threads;
    if (given.cache_folder) o.cache_folder = given.cache_folder;
    o.programs = given.programs;
    *engine = new t5g2_engine{std::make_shared<Engine>(needed(bundle, "bundle"), o)};
    return T5G2_OK;
  });
}

void t5g2_engine_free(t5g2_engine* engine) { delete engine; }

t5g2_status t5g2_engine_get_info(const t5g2_engine* engine, t5g2_engine_info* info) {
  return guard([&] {
    const Engine& e = *needed(engine, "engine")->engine;
    const Manifest& m = e.manifest();
    t5g2_engine_info all{};
    all.size = needed(info, "info")->size;
    if (all.size < sizeof(size_t) || all.size > sizeof(all)) misuse("info: set its size to sizeof(t5g2_engine_info)");
    all.max_source = m.max_source;
    all.max_target = m.max_target;
    all.vocab_size = m.vocab_size;
    all.hidden_size = m.hidden_size;
    all.has_tokenizer = e.has_tokenizer();
    all.has_vision = m.has_vision;
    all.image_side = m.has_vision ? m.image->side : 0;
    all.image_tokens = m.tokens.tokens_per_image;
    all.bos_id = m.tokens.bos;
    all.eos_id = m.tokens.eos.front();
    all.threads = thread_count();
    all.read_seconds = e.read_seconds();
    all.load_seconds = e.load_seconds();
    std::memcpy(info, &all, all.size);
    return T5G2_OK;
  });
}

const char* t5g2_engine_manifest(const t5g2_engine* engine) { return engine ? engine->engine->manifest().text.c_str() : ""; }

const char* t5g2_engine_kernels(const t5g2_engine* engine) {
  return engine ? t5g2::kernels(engine->engine->manifest().backend) : "";
}

t5g2_status t5g2_source_ids(const t5g2_engine* engine, const char* text, size_t length, size_t image_count, int32_t* ids,
                            size_t capacity, size_t* count) {
  return guard([&] {
    const auto found = needed(engine, "engine")->engine->source_ids(text_of(text, length), image_count);
    give(found.data(), found.size(), ids, capacity, count);
    return T5G2_OK;
  });
}

t5g2_status t5g2_target_ids(const t5g2_engine* engine, const char* text, size_t length, int32_t* ids, size_t capacity,
                            size_t* count) {
  return guard([&] {
    const auto found = needed(engine, "engine")->engine->tokenizer().encode(text_of(text, length));
    give(found.data(), found.size(), ids, capacity, count);
    return T5G2_OK;
  });
}

t5g2_status t5g2_text_of_ids(const t5g2_engine* engine, const int32_t* ids, size_t id_count, int32_t skip_special, char* text,
                             size_t capacity, size_t* count) {
  return guard([&] {
    const auto found = needed(engine, "engine")->engine->tokenizer().decode(list(ids, id_count, "ids"), skip_special);
    give(found.data(), found.size(), text, capacity, count);
    if (found.size() < capacity) text[found.size()] = '\0';
    return T5G2_OK;
  });
}

t5g2_status t5g2_session_new(t5g2_engine* engine, const t5g2_source* source, t5g2_session** session) {
  return guard([&] {
    needed(session, "session");
    const auto& e = needed(engine, "engine")->engine;
    const t5g2_source& s = *needed(source, "source");
    if (bool(s.text) == bool(s.ids)) misuse("source: give text or ids", s.text ? ", not both" : "");
    if (s.images && s.pixels) misuse("source: give images or pixels, not both");
    const size_t images = s.images || s.pixels ? s.image_count : 0;
    if (s.image_count && !images) misuse("source: image_count is ", s.image_count, " and there are no images");
    std::vector<int32_t> ids = s.text ? e->source_ids(text_in_struct(s.text, s.text_length), images)
                                      : std::vector<int32_t>(s.ids, s.ids + s.id_count);
    const std::vector<float> pixels = s.images ? pixels_of(*e, s) : std::vector<float>();
    *session = new_session(e, e->encode(std::move(ids), s.pixels ? s.pixels : pixels.data(), images));
    return T5G2_OK;
  });
}

t5g2_status t5g2_session_fork(const t5g2_session* session, t5g2_session** fork) {
  return guard([&] {
    *needed(fork, "fork") = new t5g2_session(*needed(session, "session"));
    return T5G2_OK;
  });
}

t5g2_status t5g2_session_save(const t5g2_session* session, const char* path) {
  return guard([&] {
    const t5g2_session& s = *needed(session, "session");
    save_source(*s.source, s.engine->manifest(), needed(path, "path"));
    return T5G2_OK;
  });
}

t5g2_status t5g2_session_load(t5g2_engine* engine, const char* path, t5g2_session** session) {
  return guard([&] {
    needed(session, "session");
    const auto& e = needed(engine, "engine")->engine;
    *session = new_session(e, load_source(e->manifest(), needed(path, "path")));
    return T5G2_OK;
  });
}

void t5g2_session_free(t5g2_session* session) { delete session; }

t5g2_status t5g2_session_ids(const t5g2_session* session, int32_t* ids, size_t capacity, size_t* count) {
  return guard([&] {
    const auto& found = needed(session, "session")->source->ids;
    give(found.data(), found.size(), ids, capacity, count);
    return T5G2_OK;
  });
}

t5g2_status t5g2_session_states(const t5g2_session* session, int32_t pooled, float* states, size_t capacity, size_t* count) {
  return guard([&] {
    const t5g2_session& s = *needed(session, "session");
    const std::vector<float>& all = s.source->states;
    if (!pooled) {
      give(all.data(), all.size(), states, capacity, count);
      return T5G2_OK;
    }
    const size_t hidden = size_t(s.engine->manifest().hidden_size), tokens = s.source->ids.size();
    std::vector<double> sums(hidden);
    for (size_t i = 0; i < all.size(); ++i) sums[i % hidden] += all[i];
    std::vector<float> means(hidden);
    for (size_t i = 0; i < hidden; ++i) means[i] = float(sums[i] / double(tokens));
    give(means.data(), means.size(), states, capacity, count);
    return T5G2_OK;
  });
}

t5g2_status t5g2_session_logits(const t5g2_session* session, const int32_t* target_ids, size_t id_count, float* logits,
                                size_t capacity, size_t* count) {
  return guard([&] {
    const t5g2_session& s = *needed(session, "session");
    const auto ids = list(target_ids, id_count, "target_ids");
    s.engine->check_ids(ids, "target_ids", s.engine->manifest().max_target, "--max-target");
    const size_t vocab = size_t(s.engine->manifest().vocab_size);
    list(logits, capacity, "the output buffer");
    *needed(count, "count") = ids.size() * vocab;
    if (capacity < *count) return T5G2_OK;  // a question about the size is not worth the arithmetic
    Pages cache = s.engine->new_cache();
    s.engine->feed(*s.source, cache, ids, 0, [&](size_t at, std::span<float> rows) {
      std::copy(rows.begin(), rows.end(), logits + at * vocab);
      return true;
    });
    return T5G2_OK;
  });
}

t5g2_status t5g2_session_score(const t5g2_session* session, const int32_t* target_ids, size_t id_count, float* logprobs,
                               size_t capacity, size_t* count) {
  return guard([&] {
    const t5g2_session& s = *needed(session, "session");
    const Manifest& m = s.engine->manifest();
    const auto ids = list(target_ids, id_count, "target_ids");
    s.engine->check_ids(ids, "target_ids", m.max_target, "--max-target");
    list(logprobs, capacity, "the output buffer");
    *needed(count, "count") = ids.size();
    if (capacity < *count) return T5G2_OK;
    std::vector<int32_t> fed(ids.begin(), ids.end() - 1);
    fed.insert(fed.begin(), m.tokens.bos);
    const size_t vocab = size_t(m.vocab_size);
    Pages cache = s.engine->new_cache();
    s.engine->feed(*s.source, cache, fed, 0, [&](size_t at, std::span<float> rows) {
      for (size_t i = 0; i * vocab < rows.size(); ++i) {
        logprobs[at + i] = logprob_of(rows.subspan(i * vocab, vocab), ids[at + i]);
      }
      return true;
    });
    return T5G2_OK;
  });
}

void t5g2_generation_defaults(t5g2_generation_options* options) {
  if (!options) return;
  *options = {};
  options->size = sizeof(t5g2_generation_options);
  options->top_p = 1;
  options->repetition_penalty = 1;
  options->seed = -1;
  options->beams = 1;
  options->length_penalty = 1;
  options->suppress_unused = 1;
  options->logprobs = -1;
}

t5g2_status t5g2_generation_start(const t5g2_session* session, const t5g2_generation_options* options,
                                  t5g2_generation** generation) {
  return guard([&] {
    needed(generation, "generation");
    const t5g2_session& s = *needed(session, "session");
    GenerationOptions o = options_of(*s.engine, known(options, t5g2_generation_defaults));
    *generation = new t5g2_generation{{s.engine, s.source, std::move(o)}, {}};
    return T5G2_OK;
  });
}

t5g2_status t5g2_generation_next(t5g2_generation* generation, t5g2_token* token) {
  return guard([&] {
    needed(token, "token");
    auto& [g, current] = *needed(generation, "generation");
    auto next = g.next();
    if (!next) return g.targets()[0].finish == Finish::kCancelled ? T5G2_CANCELLED : T5G2_DONE;
    current = std::move(*next);
    *token = {.id = current.id,
              .text = current.text.c_str(),
              .text_length = current.text.size(),
              .logprob = current.logprobs.chosen,
              .top_count = current.logprobs.ids.size(),
              .top_ids = current.logprobs.ids.data(),
              .top_logprobs = current.logprobs.logprobs.data()};
    return T5G2_OK;
  });
}

void t5g2_generation_cancel(t5g2_generation* generation) {
  if (generation) generation->generation.cancel();
}

t5g2_status t5g2_generation_result(const t5g2_generation* generation, size_t index, t5g2_result* result) {
  return guard([&] {
    needed(result, "result");
    const auto& targets = needed(generation, "generation")->generation.targets();
    if (index >= targets.size()) misuse("index: ", index, ", and there are ", targets.size(), " targets");
    const Target& t = targets[index];
    *result = {.text = t.text.c_str(),
               .text_length = t.text.size(),
               .ids = t.ids.data(),
               .id_count = t.ids.size(),
               .finish = t5g2_finish(t.finish),
               .score = t.score};
    return T5G2_OK;
  });
}

void t5g2_generation_free(t5g2_generation* generation) { delete generation; }

}  // extern "C"
