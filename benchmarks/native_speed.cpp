// Speed and memory of a native text program, without Python. Prints one JSON object; times are medians, the runs beside them.
// native_speed.py fills the arguments in from a bundle's manifest.
//
//     native_speed TEXT_PTE --cache ELEMENTS --vocab N [--hidden N] [--float 1] [--source 512] [--depth 256] [--threads 1]
//                  [--repeat 5] [--steps 32]
//
// cache: elements of the self cache. hidden: of the image features, for a bundle with vision. float: the caches are float32.
// depth: target position that decoding starts from; all of its logits are computed, and searched for the largest.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <executorch/extension/tensor/tensor.h>

#include "runtime/engine/pages.h"
#include "runtime/engine/program.h"

using executorch::aten::ScalarType;
using executorch::extension::from_blob;
using Clock = std::chrono::steady_clock;

namespace {

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double resident_mb(const char* field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field, 0) == 0) return std::atof(line.c_str() + std::strlen(field)) / 1e3 * 1.024;
  }
  return 0;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void print_list(const char* name, const std::vector<double>& values) {
  std::printf(", \"%s\": [", name);
  for (size_t i = 0; i < values.size(); ++i) std::printf("%s%.2f", i ? ", " : "", values[i]);
  std::printf("]");
}

// Bytes a second that `threads` threads read together from memory that no cache holds, in huge pages where there are any.
double read_bandwidth(int64_t threads) {
  constexpr size_t kBytes = size_t(256) << 20, kWords = kBytes / 8;
  std::vector<t5g2::Pages> memory;
  for (int64_t i = 0; i < threads; ++i) std::memset(memory.emplace_back(kBytes, true).data(), 1, kBytes);
  std::vector<double> runs;
  for (int run = 0; run < 7; ++run) {
    const auto start = Clock::now();
    std::vector<std::thread> readers;
    for (const t5g2::Pages& pages : memory) {
      readers.emplace_back([&pages] {
        const auto* words = reinterpret_cast<const uint64_t*>(pages.data());
        uint64_t sums[8] = {};
        for (size_t i = 0; i < kWords; i += 8) {
          __builtin_prefetch(words + i + 256);
          for (size_t j = 0; j < 8; ++j) sums[j] += words[i + j];
        }
        volatile uint64_t total = 0;
        for (uint64_t sum : sums) total = total + sum;
      });
    }
    for (auto& reader : readers) reader.join();
    runs.push_back(double(kBytes) * double(threads) / since(start));
  }
  return median(runs);
}

int measure(int argc, char** argv) {
  std::map<std::string, int64_t> options = {{"cache", 0},  {"vocab", 0},  {"hidden", 0}, {"float", 0}, {"source", 512},
                                            {"depth", 256}, {"threads", 1}, {"repeat", 5}, {"steps", 32}};
  for (int i = 2; i + 1 < argc; i += 2) {
    const auto found = options.find(argv[i] + std::min<size_t>(2, std::strlen(argv[i])));
    if (found == options.end()) {
      std::fprintf(stderr, "native_speed: unknown option %s\n", argv[i]);
      return 2;
    }
    found->second = std::atoll(argv[i + 1]);
  }
  if (argc < 2 || options["cache"] < 1) {
    std::fprintf(stderr, "usage: native_speed TEXT_PTE --cache ELEMENTS --vocab N … (see native_speed.cpp)\n");
    return 2;
  }
  t5g2::set_threads(int32_t(options["threads"]));
  const int64_t source = options["source"];

  const auto load_start = Clock::now();
  t5g2::Program program(argv[1], {"encoder", "decoder_step"});
  const double load_s = since(load_start);

  std::vector<int64_t> ids(source);
  for (int64_t i = 0; i < source; ++i) ids[i] = 5 + i * 7919 % (options["vocab"] - 10);
  std::vector<float> features(options["hidden"] * source);
  std::vector<executorch::runtime::EValue> encoder_inputs;
  auto ids_tensor = from_blob(ids.data(), {int(source)}, ScalarType::Long);
  encoder_inputs.emplace_back(*ids_tensor);
  auto features_tensor = from_blob(features.data(), {int(source), int(options["hidden"])}, ScalarType::Float);
  if (options["hidden"]) encoder_inputs.emplace_back(*features_tensor);

  std::vector<double> encode;
  for (int64_t i = 0; i <= options["repeat"]; ++i) {
    const auto start = Clock::now();
    program.run("encoder", encoder_inputs);
    if (i) encode.push_back(double(source) / since(start));  // the first warms up
  }
  const auto cross = program.run("encoder", encoder_inputs).front();

  const size_t size = options["float"] ? 4 : 2;
  t5g2::Pages cache(options["cache"] * size);
  auto cache_tensor = from_blob(cache.data(), {int(options["cache"])}, options["float"] ? ScalarType::Float : ScalarType::Half);
  int64_t id = 2, position = 0;
  auto id_tensor = from_blob(&id, {1}, ScalarType::Long);
  auto position_tensor = from_blob(&position, {1}, ScalarType::Long);
  const auto step = [&] {
    const auto result = program.run("decoder_step", {*id_tensor, *position_tensor, *cache_tensor, cross});
    const float* logits = result.back().toTensor().const_data_ptr<float>();
    id = std::max_element(logits, logits + options["vocab"]) - logits;
    ++position;
  };
  const auto first_start = Clock::now();
  step();
  const double first_step_s = since(first_start);
  std::vector<double> decode;
  for (int64_t i = 0; i < options["repeat"]; ++i) {
    position = options["depth"];
    const auto start = Clock::now();
    for (int64_t n = 0; n < options["steps"]; ++n) step();
    decode.push_back(double(options["steps"]) / since(start));
  }
  const double resident = resident_mb("VmRSS:"), peak = resident_mb("VmHWM:");
  std::printf("{\"threads\": %d, \"source\": %d, \"depth\": %d, \"load_s\": %.4f, \"first_step_s\": %.4f, "
              "\"encode_tok_s\": %.1f, \"decode_tok_s\": %.2f, \"resident_mb\": %.1f, \"peak_mb\": %.1f, \"read_gb_s\": %.2f",
              int(options["threads"]), int(source), int(options["depth"]), load_s, first_step_s, median(encode), median(decode),
              resident, peak, read_bandwidth(options["threads"]) / 1e9);
  print_list("encode_runs", encode);
  print_list("decode_runs", decode);
  std::printf("}\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return measure(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "native_speed: %s\n", error.what());
    return 1;
  }
}
