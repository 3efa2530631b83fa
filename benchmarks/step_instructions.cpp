// Decoder steps to count the instructions of: `step_instructions BUNDLE HASHES STEPS`, on the kernels that T5G2_CPU names and over
// the public interface; HASHES is where it is remembered that the bundle was checked. instructions.py counts.
//
// Every run makes the same calls, on one thread (one_thread.cpp), so counts repeat.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "t5g2.h"

namespace {

constexpr int kSource = 40;  // longer than a window of nano, so that both kinds of layers are there

int fail(const char* what) {
  std::fprintf(stderr, "step_instructions: %s\n", what);
  return 1;
}

int run(const char* bundle, const char* hashes, int32_t steps) {
  t5g2_engine_options engine_options;
  t5g2_engine_defaults(&engine_options);
  engine_options.threads = 1;
  engine_options.cache_folder = hashes;
  t5g2_engine* engine = nullptr;
  if (t5g2_engine_open(bundle, &engine_options, &engine)) return fail(t5g2_error());
  const char* wanted = std::getenv("T5G2_CPU");
  if (wanted && std::strcmp(wanted, t5g2_engine_kernels(engine)) != 0) return fail("counts would be those of other kernels");

  t5g2_engine_info info{};
  info.size = sizeof(info);
  if (t5g2_engine_get_info(engine, &info)) return fail(t5g2_error());
  std::vector<int32_t> ids(kSource);
  for (int i = 0; i < kSource; ++i) ids[i] = i ? 300 + 7 * i : info.bos_id;
  t5g2_source source{};
  source.ids = ids.data();
  source.id_count = ids.size();
  t5g2_session* session = nullptr;
  if (t5g2_session_new(engine, &source, &session)) return fail(t5g2_error());

  t5g2_generation_options options;
  t5g2_generation_defaults(&options);
  options.max_new_tokens = options.min_new_tokens = steps;
  t5g2_generation* generation = nullptr;
  if (t5g2_generation_start(session, &options, &generation)) return fail(t5g2_error());
  t5g2_token token;
  t5g2_status status;
  while ((status = t5g2_generation_next(generation, &token)) == T5G2_OK) {
  }
  if (status != T5G2_DONE) return fail(t5g2_error());
  t5g2_generation_free(generation);
  t5g2_session_free(session);
  t5g2_engine_free(engine);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return argc == 4 ? run(argv[1], argv[2], std::atoi(argv[3])) : fail("usage: step_instructions BUNDLE HASHES STEPS");
}
