// A bare loop of decoder steps over a native bundle's program: what t5g2-bench must not be slower than. Prints tokens a second
// of each run, as a JSON list.
//
//     bare_decode BUNDLE [--source 512] [--depth 256] [--threads 1] [--repeat 5] [--target 64]

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include <executorch/extension/tensor/tensor.h>

#include "benchmarks/bench/ids.h"
#include "benchmarks/number_options.h"
#include "runtime/engine/error.h"
#include "runtime/engine/program.h"
#include "runtime/engine/softmax.h"

namespace {

using executorch::aten::ScalarType;
using executorch::extension::from_blob;
using Clock = std::chrono::steady_clock;

void measure(const char* folder, t5g2::NumberOptions options) {
  const t5g2::Bundle bundle = t5g2::open_bundle(folder, t5g2::default_cache_folder());
  const t5g2::Manifest& m = bundle.manifest;
  if (!m.native || m.has_vision) t5g2::fail(folder, ": export with --backend native --no-vision");
  t5g2::set_threads(int32_t(options["--threads"]));
  t5g2::Program program(bundle.file("text.pte"), {"encoder", "decoder_step"});

  const std::vector<int32_t> source = t5g2::bench::source_ids(m, options["--source"], 0);
  std::vector<int64_t> ids(source.begin(), source.end());
  const auto cross = program.run("encoder", {*from_blob(ids.data(), {int(ids.size())}, ScalarType::Long)}).front();

  const auto type = m.cache_element_bytes == 2 ? ScalarType::Half : ScalarType::Float;
  t5g2::Pages cache(m.self_cache_bytes());
  const auto cache_tensor = from_blob(cache.data(), {int(cache.size() / m.cache_element_bytes)}, type);
  int64_t id = m.tokens.bos, position = 0;
  const auto id_tensor = from_blob(&id, {1}, ScalarType::Long), position_tensor = from_blob(&position, {1}, ScalarType::Long);
  t5g2::BlockMaxima maxima;
  for (long run = 0; run <= options["--repeat"]; ++run) {  // the first is not counted
    position = options["--depth"];
    const auto start = Clock::now();
    for (long i = 0; i < options["--target"]; ++i, ++position) {
      const auto outputs = program.run("decoder_step", {*id_tensor, *position_tensor, *cache_tensor, cross});
      maxima.update({outputs.back().toTensor().const_data_ptr<float>(), size_t(m.vocab_size)});
      id = maxima.first_largest();
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (run) std::printf("%s%.3f", run == 1 ? "[" : ", ", double(options["--target"]) / seconds);
  }
  std::printf("]\n");
}

}  // namespace

int main(int argc, char** argv) {
  return t5g2::run_with_numbers(
      "bare_decode", argc, argv,
      {{"--source", 512}, {"--depth", 256}, {"--threads", 1}, {"--repeat", 5}, {"--target", 64}}, measure);
}
