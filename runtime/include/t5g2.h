/* t5g2: the engine's C interface. Everything else (command line, Python, the Android app) is built on this header.
 *
 *     t5g2_engine* engine;
 *     t5g2_session* session;
 *     t5g2_generation* generation;
 *     t5g2_token token;
 *     if (t5g2_engine_open("out/nano-int4", NULL, &engine)) return puts(t5g2_error());
 *     t5g2_source source = {.text = "ISO date: 3 March 2021"};
 *     if (t5g2_session_new(engine, &source, &session)) ...
 *     if (t5g2_generation_start(session, NULL, &generation)) ...
 *     while (t5g2_generation_next(generation, &token) == T5G2_OK) fwrite(token.text, 1, token.text_length, stdout);
 *
 * Objects. An engine is an opened bundle. A session is an encoded source: ask it any number of targets. A generation is one
 * target in the making. Each keeps what it was made from alive, so they are freed in any order; freeing NULL does nothing.
 *
 * Threads. An engine and a session never change once made and may be used from any number of threads at a time; program calls
 * of one engine take turns, since each uses all of the CPU threads. A generation belongs to one thread at a time, but for
 * t5g2_generation_cancel, which any thread may call.
 *
 * Errors. Functions return a t5g2_status. After T5G2_ERROR and T5G2_USAGE, t5g2_error() says in one line what was wrong and
 * what to do, and outputs are not written. Nothing throws, exits or prints.
 *
 * Text is UTF-8 with its length in bytes; T5G2_TO_NUL as a length means up to the terminating NUL. Ids are token ids.
 *
 * Structs of options are filled by their `..._defaults` function, which also sets `size`; fields are only ever added at the
 * end, and `size` tells the library which of them the caller knows. The same holds for structs that the library fills: set
 * `size` to sizeof before the call.
 *
 * An output buffer comes with a capacity in elements and a `count`: the function writes at most `capacity` elements and sets
 * `*count` to how many there are, so a call with a capacity of 0 asks for the size.
 */

#ifndef T5G2_H
#define T5G2_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define T5G2_API __attribute__((visibility("default")))

/* Raised by one when a function or a field is added; existing ones keep their meaning. */
#define T5G2_API_VERSION 2

#define T5G2_TO_NUL ((size_t)-1)

typedef struct t5g2_engine t5g2_engine;
typedef struct t5g2_session t5g2_session;
typedef struct t5g2_generation t5g2_generation;

typedef enum t5g2_status {
  T5G2_OK = 0,
  T5G2_DONE = 1,      /* of t5g2_generation_next: no more tokens */
  T5G2_CANCELLED = 2, /* another thread called t5g2_generation_cancel */
  T5G2_ERROR = -1,    /* something outside the program is wrong: a file, a bundle, an input, too little memory */
  T5G2_USAGE = -2     /* an argument that no input could satisfy: a NULL, an option out of range */
} t5g2_status;

/* The T5G2_API_VERSION that the library was built with. */
T5G2_API uint32_t t5g2_api_version(void);

/* The library's version, such as "0.1.0". */
T5G2_API const char* t5g2_version(void);

/* What went wrong in this thread's last call that failed: one line, valid until this thread's next failing call; "" before. */
T5G2_API const char* t5g2_error(void);

/* ---- engine ------------------------------------------------------------------------------------------------------ */

/* A bundle's programs where the caller runs them, with another runtime than ExecuTorch. Calls come one at a time, from whichever
 * thread called the engine, and return 0, or something else where they failed. Caches are the engine's memory, zeroed when new,
 * 64-byte aligned, and laid out as the caller likes: the engine only keeps and copies them. */
typedef struct t5g2_programs {
  size_t size; /* sizeof(t5g2_programs) */
  void* context; /* the first argument of every call */
  /* Encodes ids[count]. features: image features [count, hidden_size], read at image tokens only; NULL for a bundle without
   * vision. Writes the cross K/V, of the manifest's size for this count, and the encoder states [count, hidden_size]. */
  int32_t (*encode)(void* context, const int32_t* ids, size_t count, const float* features, void* cross, float* states);
  /* Feeds one target id at `position` to the decoder: updates `cache`, the self cache of this target, and writes logits
   * [vocab_size]. source_count: of the ids that `cross` was made of. */
  int32_t (*step)(void* context, int32_t id, size_t position, size_t source_count, const void* cross, void* cache,
                  float* logits);
  /* Reads a picture [3, image_side, image_side], normalised; writes its features [image_tokens, hidden_size]. */
  int32_t (*vision)(void* context, const float* pixels, float* features);
  /* What was wrong with the last call that failed, in one line. */
  const char* (*error)(void* context);
} t5g2_programs;

typedef struct t5g2_engine_options {
  size_t size;
  int32_t threads; /* of the process's one thread pool, 1 to 256; 0 (default): as many as ExecuTorch finds useful */
  /* Where it is remembered which files were checked against their sha256, so that a bundle is hashed when first opened and
   * not at every start. NULL (default): $XDG_CACHE_HOME/t5g2 or ~/.cache/t5g2. "": nowhere, hash at every start. A folder that
   * cannot be written counts as nowhere. A file whose size, time or identity changed is hashed again. */
  const char* cache_folder;
  /* For a bundle of another runtime, such as LiteRT: its programs, which outlive the engine and everything made from it. NULL
   * (default): the bundle's own, which ExecuTorch runs. */
  const t5g2_programs* programs;
} t5g2_engine_options;

T5G2_API void t5g2_engine_defaults(t5g2_engine_options* options);

/* Opens the bundle in the folder `bundle`: maps its programs and checks every file. options: NULL for the defaults. Fails for a
 * bundle that is missing, truncated, altered, of a newer format, or that this CPU or build cannot run. */
T5G2_API t5g2_status t5g2_engine_open(const char* bundle, const t5g2_engine_options* options, t5g2_engine** engine);
T5G2_API void t5g2_engine_free(t5g2_engine* engine);

typedef struct t5g2_engine_info {
  size_t size;
  int32_t max_source;     /* the longest source in tokens, BOS and image tokens included */
  int32_t max_target;     /* the longest target in tokens, BOS included */
  int32_t vocab_size;
  int32_t hidden_size;    /* width of the encoder states */
  int32_t has_tokenizer;  /* 0: only ids can be given, as with random weights */
  int32_t has_vision;     /* 0: no pictures */
  int32_t image_side;     /* pictures become side x side pixels; 0 without vision */
  int32_t image_tokens;   /* source tokens that stand for one picture, without the text around them */
  int32_t bos_id;
  int32_t eos_id;         /* the first of the bundle's stop ids; ends a whole answer in t5g2_session_score */
  int32_t threads;        /* of the process's pool */
  double read_seconds;    /* what opening took: reading the manifest and checking hashes */
  double load_seconds;    /* and loading the programs and the tokenizer */
} t5g2_engine_info;

T5G2_API t5g2_status t5g2_engine_get_info(const t5g2_engine* engine, t5g2_engine_info* info);

/* The bundle's manifest.json as it is in the file; valid while the engine lives. */
T5G2_API const char* t5g2_engine_manifest(const t5g2_engine* engine);

/* The name of the kernels in use: portable, avx2, avx512vnni, amx, neon, neon_dotprod or neon_i8mm; xnnpack or litert for a bundle
   of such programs. */
T5G2_API const char* t5g2_engine_kernels(const t5g2_engine* engine);

/* ---- text and ids ------------------------------------------------------------------------------------------------ */

/* Ids of a source text: BOS first, no EOS, and each <start_of_image> expanded to a picture's block of tokens. image_count: how
 * many pictures go with it; fails where the text has another number of markers. */
T5G2_API t5g2_status t5g2_source_ids(const t5g2_engine* engine, const char* text, size_t length, size_t image_count,
                                     int32_t* ids, size_t capacity, size_t* count);

/* Ids of a target text: no BOS, no EOS, nothing expanded. */
T5G2_API t5g2_status t5g2_target_ids(const t5g2_engine* engine, const char* text, size_t length, int32_t* ids, size_t capacity,
                                     size_t* count);

/* Text of ids. skip_special: leave special tokens out. Byte sequences that are not UTF-8 give U+FFFD; unknown ids nothing.
 * `*count` is without the terminating NUL, which is written where there is room for it. */
T5G2_API t5g2_status t5g2_text_of_ids(const t5g2_engine* engine, const int32_t* ids, size_t id_count, int32_t skip_special,
                                      char* text, size_t capacity, size_t* count);

/* ---- sessions ---------------------------------------------------------------------------------------------------- */

/* A decoded picture: 8 bits a channel, rows from top to bottom. Resized and normalised by the engine as at training. */
typedef struct t5g2_image {
  const uint8_t* pixels;
  int32_t width, height; /* in pixels; at most 2^30 pixels in all */
  int32_t channels;      /* 3: RGB. 4: RGBA, laid over white */
  size_t stride;         /* bytes from one row to the next; 0: rows lie close together */
} t5g2_image;

/* What a session reads: a text or ids, and the pictures that go with it. Zero-initialise it, then set what applies. */
typedef struct t5g2_source {
  const char* text;
  size_t text_length; /* 0: up to the terminating NUL */
  const int32_t* ids; /* instead of text: taken as they are, BOS included and pictures' blocks expanded */
  size_t id_count;
  const t5g2_image* images; /* one per <start_of_image>, in the order of the text */
  size_t image_count;
  const float* pixels; /* instead of images: [image_count, 3, image_side, image_side], resized and normalised already */
} t5g2_source;

/* Encodes a source. Fails for a source that is longer than max_source, for pictures that do not match the markers, and for
 * ids outside the vocabulary. Takes the time of the encoder, and of the vision tower for each picture. */
T5G2_API t5g2_status t5g2_session_new(t5g2_engine* engine, const t5g2_source* source, t5g2_session** session);

/* Another session on the same encoded source, which both share: nothing is copied. For callers that own sessions singly. */
T5G2_API t5g2_status t5g2_session_fork(const t5g2_session* session, t5g2_session** fork);

/* Writes the encoded source to a file, which appears whole or not at all. About
 * memory.cross_kv_bytes_per_source_token + 4 * hidden_size bytes a token (see the manifest). */
T5G2_API t5g2_status t5g2_session_save(const t5g2_session* session, const char* path);

/* Reads what t5g2_session_save wrote. Fails for a damaged file, for another model or quantization, and for a newer format. */
T5G2_API t5g2_status t5g2_session_load(t5g2_engine* engine, const char* path, t5g2_session** session);

T5G2_API void t5g2_session_free(t5g2_session* session);

/* The ids that were encoded. */
T5G2_API t5g2_status t5g2_session_ids(const t5g2_session* session, int32_t* ids, size_t capacity, size_t* count);

/* The encoder's output after its last norm. pooled 0: per token, [source tokens, hidden_size]; 1: the mean over all tokens,
 * [hidden_size]. */
T5G2_API t5g2_status t5g2_session_states(const t5g2_session* session, int32_t pooled, float* states, size_t capacity,
                                         size_t* count);

/* Teacher-forced logits: row i is what the model predicts after reading target_ids[0..i]; BOS is not added.
 * [id_count, vocab_size], before any option of generation. */
T5G2_API t5g2_status t5g2_session_logits(const t5g2_session* session, const int32_t* target_ids, size_t id_count, float* logits,
                                         size_t capacity, size_t* count);

/* Natural log of the model's probability of each of the given target ids after BOS and those before it, [id_count]. The sum
 * scores a target against others; append an EOS id to score it as a whole answer. */
T5G2_API t5g2_status t5g2_session_score(const t5g2_session* session, const int32_t* target_ids, size_t id_count,
                                        float* logprobs, size_t capacity, size_t* count);

/* ---- generation -------------------------------------------------------------------------------------------------- */

typedef struct t5g2_generation_options {
  size_t size;
  int32_t max_new_tokens;      /* 0 (default): all that max_target leaves; never more */
  int32_t min_new_tokens;      /* no stop id before that many; default 0 */
  float temperature;           /* 0 (default): greedy, the likeliest token */
  int32_t top_k;               /* sample from the k likeliest; 0 (default): all */
  float top_p;                 /* of those, from the likeliest that together reach probability p; 1 (default): all */
  float min_p;                 /* of those, from the ones at least min_p times as likely as the likeliest; 0 (default): all */
  float repetition_penalty;    /* > 1 makes tokens that the target already holds less likely, < 1 more; 1 (default): off */
  int32_t no_repeat_ngram;     /* no run of that many tokens twice in a target; 0 (default): off */
  int64_t seed;                /* >= 0: the same seed gives the same tokens; -1 (default): a new one each time */
  int32_t beams;               /* > 1: beam search over that many (at most 64), greedy only; 1 (default): off */
  float length_penalty;        /* of beams: log-probability is divided by length^penalty; -10 to 10, default 1 */
  int32_t early_stopping;      /* of beams: 1 stops when `beams` targets ended; 0 (default): when none can become better */
  const char* prefix_text;     /* the target begins with this; not part of the result; NULL (default): nothing */
  size_t prefix_text_length;   /* 0: up to the terminating NUL */
  const int32_t* prefix_ids;   /* instead of prefix_text, without BOS */
  size_t prefix_id_count;
  const int32_t* stop_ids;     /* end the target beside the bundle's own stop ids */
  size_t stop_id_count;
  const char* const* stop_strings; /* NUL-terminated; the text ends before the first of them */
  size_t stop_string_count;
  const int32_t* suppressed_ids; /* never chosen */
  size_t suppressed_id_count;
  int32_t suppress_unused;     /* 1 (default): never choose the vocabulary's unused and image tokens either */
  int32_t logprobs;            /* -1 (default): none; 0: of the chosen token; n: of the n likeliest too (at most 100) */
} t5g2_generation_options;

T5G2_API void t5g2_generation_defaults(t5g2_generation_options* options);

/* Begins a target. options: NULL for the defaults; read during the call only. The order in which options act: repetition
 * penalty, no_repeat_ngram, min_new_tokens, suppressed ids, temperature, top_k, top_p, min_p. */
T5G2_API t5g2_status t5g2_generation_start(const t5g2_session* session, const t5g2_generation_options* options,
                                           t5g2_generation** generation);

typedef struct t5g2_token {
  int32_t id;          /* -1: no token, only text that had been held back until the end */
  const char* text;    /* what this token makes safe to show: often empty, never part of a character or of a stop string */
  size_t text_length;
  float logprob;       /* natural log of the model's probability, before all options; NaN unless asked for */
  size_t top_count;    /* the likeliest tokens, likeliest first */
  const int32_t* top_ids;
  const float* top_logprobs;
} t5g2_token;

/* Makes the next token. T5G2_OK: `token` is filled; its pointers are valid until the next call with this generation.
 * T5G2_DONE: the target has ended. T5G2_CANCELLED: by t5g2_generation_cancel. After an error the generation does not go on: it
 * repeats the error. With beams the first call searches, and the calls give the tokens of the best target. */
T5G2_API t5g2_status t5g2_generation_next(t5g2_generation* generation, t5g2_token* token);

/* From any thread: the call in progress, or else the next one, returns T5G2_CANCELLED as soon as the program call that it waits
 * for ends. */
T5G2_API void t5g2_generation_cancel(t5g2_generation* generation);

typedef enum t5g2_finish {
  T5G2_FINISH_NONE = 0,      /* not finished */
  T5G2_FINISH_STOP = 1,      /* a stop id or a stop string */
  T5G2_FINISH_LENGTH = 2,    /* max_new_tokens */
  T5G2_FINISH_CANCELLED = 3
} t5g2_finish;

typedef struct t5g2_result {
  const char* text;      /* without the stop string, NUL-terminated */
  size_t text_length;
  const int32_t* ids;    /* without BOS, prefix and the id that stopped it */
  size_t id_count;
  t5g2_finish finish;
  double score;          /* of beams: sum of log-probabilities / length^penalty, what they are ranked by; else 0 */
} t5g2_result;

/* What was generated so far. index: 0; with beams also 1 to beams - 1, best first, once the search is over; T5G2_USAGE beyond
 * the last one, which comes earlier where suppressed ids leave fewer. Valid until the next call with this generation. */
T5G2_API t5g2_status t5g2_generation_result(const t5g2_generation* generation, size_t index, t5g2_result* result);

T5G2_API void t5g2_generation_free(t5g2_generation* generation);

#ifdef __cplusplus
}
#endif

#endif
