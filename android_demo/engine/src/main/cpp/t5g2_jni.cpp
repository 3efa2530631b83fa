// The functions of dev.t5g2.engine.Native over t5g2.h.
//
// Each is called from Kotlin with arguments that are not null unless Native says so, and with arrays that have room for the
// results. What C++ throws does not leave here. Where Java's memory is short, a function of JNI returns null with an
// OutOfMemoryError pending: then ours returns at once. Local references end with each call.

#include <jni.h>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "t5g2.h"

namespace {

static_assert(std::is_same_v<jint, int32_t> && sizeof(jfloat) == sizeof(float), "ids and floats are handed over as they are");

constexpr size_t kNothing = 0;

t5g2_engine* engine_at(jlong pointer) { return reinterpret_cast<t5g2_engine*>(pointer); }
t5g2_session* session_at(jlong pointer) { return reinterpret_cast<t5g2_session*>(pointer); }
t5g2_generation* generation_at(jlong pointer) { return reinterpret_cast<t5g2_generation*>(pointer); }

// What `body` returns; `otherwise`, with an exception pending in Java, where C++'s memory is short.
template <class Body>
auto guard(JNIEnv* env, std::invoke_result_t<Body> otherwise, const Body& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    if (const jclass error = env->FindClass("java/lang/OutOfMemoryError")) env->ThrowNew(error, "t5g2");
    return otherwise;
  }
}

// ---- from Java -----------------------------------------------------------------------------------------------------

std::string text_of(JNIEnv* env, jbyteArray array) {
  std::string text(size_t(env->GetArrayLength(array)), '\0');
  env->GetByteArrayRegion(array, 0, jsize(text.size()), reinterpret_cast<jbyte*>(text.data()));
  return text;
}

std::vector<int32_t> ids_of(JNIEnv* env, jintArray array) {
  std::vector<int32_t> ids(size_t(env->GetArrayLength(array)));
  env->GetIntArrayRegion(array, 0, jsize(ids.size()), ids.data());
  return ids;
}

// Bytes of Java's, read where they lie as far as the virtual machine can, which must not wait for that: not "critical".
class Pinned {
 public:
  Pinned(JNIEnv* env, jbyteArray array) : env_(env), array_(array), bytes_(env->GetByteArrayElements(array, nullptr)) {}
  ~Pinned() {
    if (bytes_) env_->ReleaseByteArrayElements(array_, bytes_, JNI_ABORT);  // they were not changed
  }
  Pinned(Pinned&& other) noexcept : env_(other.env_), array_(other.array_), bytes_(std::exchange(other.bytes_, nullptr)) {}

  const uint8_t* data() const { return reinterpret_cast<const uint8_t*>(bytes_); }

 private:
  JNIEnv* const env_;
  const jbyteArray array_;
  jbyte* bytes_;
};

// ---- to Java -------------------------------------------------------------------------------------------------------

jbyteArray bytes(JNIEnv* env, const char* text, size_t length) {
  const jbyteArray array = env->NewByteArray(jsize(length));
  if (array) env->SetByteArrayRegion(array, 0, jsize(length), reinterpret_cast<const jbyte*>(text));
  return array;
}

jbyteArray bytes(JNIEnv* env, const char* text) { return bytes(env, text, std::char_traits<char>::length(text)); }

// Makes `array` the only element of `place`. False with an exception pending where it could not be made.
bool put(JNIEnv* env, jobjectArray place, jarray array) {
  if (array) env->SetObjectArrayElement(place, 0, array);
  return array;
}

bool put_text(JNIEnv* env, jobjectArray place, const char* text, size_t length) {
  return put(env, place, bytes(env, text, length));
}

bool put_ids(JNIEnv* env, jobjectArray place, const int32_t* ids, size_t count) {
  const jintArray array = env->NewIntArray(jsize(count));
  if (array) env->SetIntArrayRegion(array, 0, jsize(count), ids);
  return put(env, place, array);
}

bool put_floats(JNIEnv* env, jobjectArray place, const std::vector<float>& values) {
  const jfloatArray array = env->NewFloatArray(jsize(values.size()));
  if (array) env->SetFloatArrayRegion(array, 0, jsize(values.size()), values.data());
  return put(env, place, array);
}

template <class T>
jint put_pointer(JNIEnv* env, jlongArray place, t5g2_status status, T* made) {
  const jlong pointer = reinterpret_cast<jlong>(made);
  if (status == T5G2_OK) env->SetLongArrayRegion(place, 0, 1, &pointer);
  return status;
}

// Calls a function that fills a buffer, call(buffer, capacity, count), and hands what it wrote to give(buffer, count). room:
// elements to try first.
template <class T, class Call, class Give>
t5g2_status filled(size_t room, const Call& call, const Give& give) {
  std::vector<T> out(room);
  for (;;) {
    size_t count = 0;
    if (const t5g2_status status = call(out.data(), out.size(), &count)) return status;
    const bool whole = count <= out.size();
    out.resize(count);
    if (!whole) continue;
    give(out.data(), count);
    return T5G2_OK;
  }
}

}  // namespace

extern "C" {

JNIEXPORT jbyteArray JNICALL Java_dev_t5g2_engine_Native_version(JNIEnv* env, jclass) { return bytes(env, t5g2_version()); }

JNIEXPORT jbyteArray JNICALL Java_dev_t5g2_engine_Native_error(JNIEnv* env, jclass) { return bytes(env, t5g2_error()); }

// ---- engine --------------------------------------------------------------------------------------------------------

JNIEXPORT jint JNICALL Java_dev_t5g2_engine_Native_engineOpen(JNIEnv* env, jclass, jbyteArray bundle, jint threads,
                                                              jbyteArray cache_folder, jlongArray engine) {
  return guard(env, jint(T5G2_ERROR), [&] {
    t5g2_engine_options options;
    t5g2_engine_defaults(&options);
    options.threads = threads;
    const std::string cache = cache_folder ? text_of(env, cache_folder) : "";
    if (cache_folder) options.cache_folder = cache.c_str();
    t5g2_engine* made = nullptr;
    const t5g2_status status = t5g2_engine_open(text_of(env, bundle).c_str(), &options, &made);
    return put_pointer(env, engine, status, made);
  });
}

JNIEXPORT void JNICALL Java_dev_t5g2_engine_Native_engineFree(JNIEnv*, jclass, jlong engine) {
  t5g2_engine_free(engine_at(engine));
}

JNIEXPORT jint JNICALL Java_dev_t5g2_engine_Native_engineInfo(JNIEnv* env, jclass, jlong engine, jintArray integers,
                                                              jdoubleArray seconds) {
  t5g2_engine_info info;
  info.size = sizeof(info);
  const t5g2_status status = t5g2_engine_get_info(engine_at(engine), &info);
  if (status != T5G2_OK) return status;
  const jint i[] = {info.max_source, info.max_target, info.vocab_size,   info.hidden_size, info.has_tokenizer, info.has_vision,
                    info.image_side, info.image_tokens, info.bos_id, info.eos_id, info.threads};
  env->SetIntArrayRegion(integers, 0, jsize(std::size(i)), i);
  const jdouble s[] = {info.read_seconds, info.load_seconds};
  env->SetDoubleArrayRegion(seconds, 0, jsize(std::size(s)), s);
  return T5G2_OK;
}

JNIEXPORT jbyteArray JNICALL Java_dev_t5g2_engine_Native_engineManifest(JNIEnv* env, jclass, jlong engine) {
  return bytes(env, t5g2_engine_manifest(engine_at(engine)));
}

JNIEXPORT jbyteArray JNICALL Java_dev_t5g2_engine_Native_engineKernels(JNIEnv* env, jclass, jlong engine) {
  return bytes(env, t5g2_engine_kernels(engine_at(engine)));
}

// ---- text and ids --------------------------------------------------------------------------------------------------

JNIEXPORT jint JNICALL Java_dev_t5g2_engine_Native_sourceIds(JNIEnv* env, jclass, jlong engine, jbyteArray text,
                                                             jint image_count, jobjectArray ids) {
  return guard(env, jint(T5G2_ERROR), [&]() -> jint {
    const std::string source = text_of(env, text);
    return filled<int32_t>(
        source.size() + 1,
        [&](int32_t* out, size_t capacity, size_t* count) {
          return t5g2_source_ids(engine_at(engine), source.data(), source.size(), size_t(image_count), out, capacity, count);
        },
        [&](const int32_t* out, size_t count) { put_ids(env, ids, out, count); });
  });
}

JNIEXPORT jint JNICALL Java_dev_t5g2_engine_Native_targetIds(JNIEnv* env, jclass, jlong engine, jbyteArray text,
                                                             jobjectArray ids) {
  return guard(env, jint(T5G2_ERROR), [&]() -> jint {
    const std::string target = text_of(env, text);
    return filled<int32_t>(
        target.size(),
        [&](int32_t* out, size_t capacity, size_t* count) {
          return t5g2_target_ids(engine_at(engine), target.data(), target.size(), out, capacity, count);
        },
        [&](const int32_t* out, size_t count) { put_ids(env, ids, out, count); });
  });
}

JNIEXPORT jint JNICALL Java_dev_t5g2_engine_Native_textOfIds(JNIEnv* env, jclass, jlong engine, jintArray ids,
                                                             jboolean skip_special, jobjectArray text) {
  return guard(env, jint(T5G2_ERROR), [&]() -> jint {
    const std::vector<int32_t> given = ids_of(env, ids);
    return filled<char>(
        8 * given.size() + 1,
        [&](char* out, size_t capacity, size_t* count) {
          return t5g2_text_of_ids(engine_at(engine), given.data(), given.size(), skip_special, out, capacity, count);
        },
        [&](const char* out, size_t count) { put_text(env, text, out, count); });
  });
}

// ---- sessions ------------------------------------------------------------------------------------------------------

JNIEXPORT jint JNICALL Java_dev_t5g2_engine_Native_sessionNew(JNIEnv* env, jclass, jlong engine, jbyteArray text,
                                                              jintArray ids, jobjectArray arrays, jobjectArray buffers,
                                                              jintArray sizes, jlongArray session) {
  return guard(env, jint(T5G2_ERROR), [&]() -> jint {
    const std::string source_text = text ? text_of(env, text) : "";
    const std::vector<int32_t> source_ids = ids ? ids_of(env, ids) : std::vector<int32_t>();
    const std::vector<int32_t> width_and_height = ids_of(env, sizes);
    std::vector<Pinned> pinned;
    std::vector<t5g2_image> images(width_and_height.size() / 2);
    pinned.reserve(images.size());
    if (env->EnsureLocalCapacity(jint(images.size()) + 16)) return T5G2_ERROR;
    for (size_t i = 0; i < images.size(); ++i) {
      const jobject array = env->GetObjectArrayElement(arrays, jsize(i));
      const uint8_t* pixels = nullptr;
      if (array) {
        pixels = pinned.emplace_back(env, static_cast<jbyteArray>(array)).data();
        if (!pixels) return T5G2_ERROR;
      } else {
        pixels = static_cast<const uint8_t*>(env->GetDirectBufferAddress(env->GetObjectArrayElement(buffers, jsize(i))));
      }
      images[i] = {.pixels = pixels,
                   .width = width_and_height[2 * i],
                   .height = width_and_height[2 * i + 1],
                   .channels = 4,
                   .stride = 0};
    }
    static constexpr int32_t kNoIds = 0;
    t5g2_source source{};
    if (text) {
      source.text = source_text.c_str();
      source.text_length = source_text.size();
    }
    if (ids) {
      source.ids = source_ids.empty() ? &kNoIds : source_ids.data();
      source.id_count = source_ids.size();
    }
    if (!images.empty()) source.images = images.data();
    source.image_count = images.size();
    t5g2_session* made = nullptr;
    const t5g2_status status = t5g2_session_new(engine_at(engine), &source, &made);
    return put_pointer(env, session, status, made);
  });
}

JNIEXPORT jint JNICALL Java_dev_t5g2_engine_Native_sessionSave(JNIEnv* env, jclass, jlong session, jbyteArray path) {
  return guard(env, jint(T5G2_ERROR), [&]() -> jint {
    return t5g2_session_save(session_at(session), text_of(env, path).c_str());
  });
}

JNIEXPORT jint JNICALL Java_dev_t5g2_engine_Native_sessionLoad(JNIEnv* env, jclass, jlong engine, jbyteArray path,
                                                               jlongArray session) {
  return guard(env, jint(T5G2_ERROR), [&] {
    t5g2_session* made = nullptr;
    const t5g2_status status = t5g2_session_load(engine_at(engine), text_of(env, path).c_str(), &made);
    return put_pointer(env, session, status, made);
  });
}

JNIEXPORT void JNICALL Java_dev_t5g2_engine_Native_sessionFree(JNIEnv*, jclass, jlong session) {
  t5g2_session_free(session_at(session));
}

JNIEXPORT jint JNICALL Java_dev_t5g2_engine_Native_sessionIds(JNIEnv* env, jclass, jlong session, jobjectArray ids) {
  return guard(env, jint(T5G2_ERROR), [&]() -> jint {
    return filled<int32_t>(
        kNothing,
        [&](int32_t* out, size_t capacity, size_t* count) {
          return t5g2_session_ids(session_at(session), out, capacity, count);
        },
        [&](const int32_t* out, size_t count) { put_ids(env, ids, out, count); });
  });
}

JNIEXPORT jint JNICALL Java_dev_t5g2_engine_Native_sessionScore(JNIEnv* env, jclass, jlong session, jintArray target_ids,
                                                                jfloatArray logprobs) {
  return guard(env, jint(T5G2_ERROR), [&]() -> jint {
    const std::vector<int32_t> ids = ids_of(env, target_ids);
    return filled<float>(
        ids.size(),
        [&](float* out, size_t capacity, size_t* count) {
          return t5g2_session_score(session_at(session), ids.data(), ids.size(), out, capacity, count);
        },
        [&](const float* out, size_t count) { env->SetFloatArrayRegion(logprobs, 0, jsize(count), out); });
  });
}

// ---- generation ----------------------------------------------------------------------------------------------------

JNIEXPORT jint JNICALL Java_dev_t5g2_engine_Native_generationStart(
    JNIEnv* env, jclass, jlong session, jint max_new_tokens, jint min_new_tokens, jfloat temperature, jint top_k, jfloat top_p,
    jfloat min_p, jfloat repetition_penalty, jint no_repeat_ngram, jlong seed, jint beams, jfloat length_penalty,
    jboolean early_stopping, jbyteArray prefix_text, jintArray prefix_ids, jintArray stop_ids, jobjectArray stop_strings,
    jintArray suppressed_ids, jboolean suppress_unused, jint logprobs, jlongArray generation) {
  return guard(env, jint(T5G2_ERROR), [&] {
    const std::string prefix = prefix_text ? text_of(env, prefix_text) : "";
    const std::vector<int32_t> prefixes = ids_of(env, prefix_ids), stops = ids_of(env, stop_ids);
    const std::vector<int32_t> suppressed = ids_of(env, suppressed_ids);
    std::vector<std::string> strings;
    for (jsize i = 0; i < env->GetArrayLength(stop_strings); ++i) {
      const jobject string = env->GetObjectArrayElement(stop_strings, i);
      strings.push_back(text_of(env, static_cast<jbyteArray>(string)));
      env->DeleteLocalRef(string);
    }
    std::vector<const char*> pointers;
    for (const std::string& string : strings) pointers.push_back(string.c_str());

    t5g2_generation_options options;
    t5g2_generation_defaults(&options);
    options.max_new_tokens = max_new_tokens;
    options.min_new_tokens = min_new_tokens;
    options.temperature = temperature;
    options.top_k = top_k;
    options.top_p = top_p;
    options.min_p = min_p;
    options.repetition_penalty = repetition_penalty;
    options.no_repeat_ngram = no_repeat_ngram;
    options.seed = seed;
    options.beams = beams;
    options.length_penalty = length_penalty;
    options.early_stopping = early_stopping;
    if (prefix_text) options.prefix_text = prefix.c_str();
    options.prefix_text_length = prefix.size();
    options.prefix_ids = prefixes.data();
    options.prefix_id_count = prefixes.size();
    options.stop_ids = stops.data();
    options.stop_id_count = stops.size();
    options.stop_strings = pointers.data();
    options.stop_string_count = pointers.size();
    options.suppressed_ids = suppressed.data();
    options.suppressed_id_count = suppressed.size();
    options.suppress_unused = suppress_unused;
    options.logprobs = logprobs;
    t5g2_generation* made = nullptr;
    const t5g2_status status = t5g2_generation_start(session_at(session), &options, &made);
    return put_pointer(env, generation, status, made);
  });
}

JNIEXPORT jint JNICALL Java_dev_t5g2_engine_Native_generationNext(JNIEnv* env, jclass, jlong generation, jobjectArray ids,
                                                                  jobjectArray text, jobjectArray logprobs) {
  return guard(env, jint(T5G2_ERROR), [&]() -> jint {
    t5g2_token token;
    const t5g2_status status = t5g2_generation_next(generation_at(generation), &token);
    if (status != T5G2_OK) return status;
    std::vector<int32_t> all_ids = {token.id};
    all_ids.insert(all_ids.end(), token.top_ids, token.top_ids + token.top_count);
    std::vector<float> all_logprobs = {token.logprob};
    all_logprobs.insert(all_logprobs.end(), token.top_logprobs, token.top_logprobs + token.top_count);
    const bool given = put_ids(env, ids, all_ids.data(), all_ids.size()) &&
                       put_text(env, text, token.text, token.text_length) && put_floats(env, logprobs, all_logprobs);
    return given ? T5G2_OK : T5G2_ERROR;
  });
}

JNIEXPORT void JNICALL Java_dev_t5g2_engine_Native_generationCancel(JNIEnv*, jclass, jlong generation) {
  t5g2_generation_cancel(generation_at(generation));
}

JNIEXPORT jint JNICALL Java_dev_t5g2_engine_Native_generationResult(JNIEnv* env, jclass, jlong generation, jint index,
                                                                    jobjectArray text, jobjectArray ids, jintArray finish,
                                                                    jdoubleArray score) {
  t5g2_result result;
  const t5g2_status status = t5g2_generation_result(generation_at(generation), size_t(index), &result);
  if (status != T5G2_OK) return status;
  if (!put_text(env, text, result.text, result.text_length)) return T5G2_ERROR;
  if (!put_ids(env, ids, result.ids, result.id_count)) return T5G2_ERROR;
  const jint reason = result.finish;
  env->SetIntArrayRegion(finish, 0, 1, &reason);
  env->SetDoubleArrayRegion(score, 0, 1, &result.score);
  return T5G2_OK;
}

JNIEXPORT void JNICALL Java_dev_t5g2_engine_Native_generationFree(JNIEnv*, jclass, jlong generation) {
  t5g2_generation_free(generation_at(generation));
}

}  // extern "C"
