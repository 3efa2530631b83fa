// Calls of the kernels to count the instructions of: `kernel_instructions CASE REPEATS`, on the kernels that T5G2_CPU names.
// Without arguments: the compiler, then the cases, one a line. instructions.py counts.
//
// Shapes are those of the 270M size, cut so that emulation stays short. Nothing is random and nothing runs on a second
// thread (one_thread.cpp), so counts repeat exactly.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "runtime/kernels/attention.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/linear.h"
#include "runtime/kernels/packed.h"

namespace t5g2 {
namespace {

using Call = std::function<void()>;

constexpr int64_t kHidden = 640, kHeads = 4, kKvHeads = 1, kHeadSize = 256;
constexpr float kEps = 1e-6f;

// Uneven, for a running maximum that moves.
std::vector<float> values(int64_t count) {
  std::vector<float> x(count);
  for (int64_t i = 0; i < count; ++i) x[i] = float(int(i * 7919 % 255) - 127) / 64;
  return x;
}

class Weights {
 public:
  Weights(int64_t rows, int64_t bits, int64_t group_size) : shape_{nullptr, rows, kHidden, bits, group_size} {
    shape_.data = static_cast<uint8_t*>(std::aligned_alloc(64, shape_.bytes()));
    if (!shape_.data) std::abort();
    std::memset(const_cast<uint8_t*>(shape_.data), 0x3c, shape_.bytes());  // as a bfloat16 scale: 2^-7 and some
  }
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;
  ~Weights() { std::free(const_cast<uint8_t*>(shape_.data)); }
  const Packed& shape() const { return shape_; }

 private:
  Packed shape_;
};

void repeat(int64_t repeats, const Call& call) {
  for (int64_t i = 0; i < repeats; ++i) call();
}

// Activations are quantized in `quantize`, once here.
void run_linear(int64_t repeats, int64_t rows, int64_t columns, int64_t bits, int64_t group_size, bool gated = false) {
  const Weights weights(gated ? 2 * columns : columns, bits, group_size);
  const std::vector<float> x = values(rows * kHidden);
  std::vector<float> out(rows * columns);
  LinearArguments a;
  a.weights = weights.shape();
  a.rows = a.stride = columns;
  a.gated = gated;
  a.out = out.data();
  const Activations prepared = prepare(x.data(), rows, a.weights);
  repeat(repeats, [&] { linear(prepared, a); });
}

void run_quantize(int64_t repeats, int64_t rows) {
  const Packed shape{nullptr, 16, kHidden, 4, 32};
  const std::vector<float> x = values(rows * kHidden);
  repeat(repeats, [&] { prepare(x.data(), rows, shape); });
}

void run_norm(int64_t repeats, bool add) {
  const std::vector<float> x = values(kHidden), weight = values(kHidden);
  std::vector<float> sum(kHidden), out(kHidden);
  const Kernels& k = kernels();
  repeat(repeats, [&] {
    if (add) {
      k.add_rms_norm_row(x.data(), x.data(), weight.data(), weight.data(), kEps, kHidden, sum.data(), out.data());
    } else {
      k.rms_norm_row(x.data(), weight.data(), kEps, kHidden, out.data());
    }
  });
}

// A decoder step: `self` keys with its own, `source` cross keys, in float16.
void run_merged_attention(int64_t repeats, int64_t self, int64_t source) {
  const std::vector<float> qkv = values((kHeads + 2 * kKvHeads) * kHeadSize), angles = values(kHeadSize / 2);
  const std::vector<float> norm = values(kHeadSize);
  const auto entries = [](int64_t count) {
    std::vector<uint16_t> cache(count * kHeadSize);  // of 0.03 to 0.5
    for (int64_t i = 0; i < count; ++i) std::memset(&cache[i * kHeadSize], 0x28 + int(i * 5 % 8), 2 * kHeadSize);
    return cache;
  };
  std::vector<uint16_t> keys = entries(self), own_values = entries(self);
  const std::vector<uint16_t> cross_keys = entries(source), cross_values = entries(source);
  std::vector<float> out(kHeads * kHeadSize);
  MergedArguments a{};
  a.qkv = qkv.data();
  a.cos = a.sin = angles.data();
  a.q_norm = a.k_norm = norm.data();
  a.eps = kEps;
  a.scale = 1.0f / 16;
  a.rows = 1;
  a.position = self - 1;
  a.heads = kHeads;
  a.kv_heads = kKvHeads;
  a.d = kHeadSize;
  a.slots = self;
  a.source = source;
  a.half = true;
  a.keys = keys.data();
  a.values = own_values.data();
  a.cross_keys = cross_keys.data();
  a.cross_values = cross_values.data();
  a.out = out.data();
  repeat(repeats, [&] { merged_attention(a); });
}

// An encoder layer's attention; window 0: every token sees every other.
void run_attention(int64_t repeats, int64_t length, int64_t window) {
  const std::vector<float> qkv = values(length * (kHeads + 2 * kKvHeads) * kHeadSize), norm = values(kHeadSize);
  const std::vector<float> angles = values(length * kHeadSize / 2);
  std::vector<float> out(length * kHeads * kHeadSize);
  AttentionArguments a{};
  a.qkv = qkv.data();
  a.cos = a.sin = angles.data();
  a.q_norm = a.k_norm = norm.data();
  a.eps = kEps;
  a.scale = 1.0f / 16;
  a.length = length;
  a.heads = kHeads;
  a.kv_heads = kKvHeads;
  a.d = kHeadSize;
  a.window = window;
  a.out = out.data();
  repeat(repeats, [&] { attention(a, false); });
}

void run_store_entry(int64_t repeats) {
  const std::vector<float> x = values(kHeadSize);
  std::vector<uint16_t> entry(kHeadSize);
  repeat(repeats, [&] { store_entry(x.data(), kHeadSize, true, entry.data()); });
}

struct Case {
  const char* name;
  void (*run)(int64_t repeats);
};

const Case kCases[] = {
    {"add_rms_norm", [](int64_t n) { run_norm(n, true); }},
    {"attention_64_tokens_window_32", [](int64_t n) { run_attention(n, 64, 32); }},
    {"geglu_int4_1_row", [](int64_t n) { run_linear(n, 1, 512, 4, 32, true); }},
    {"geglu_int8_1_row", [](int64_t n) { run_linear(n, 1, 512, 8, 32, true); }},
    {"linear_int4_1_row", [](int64_t n) { run_linear(n, 1, 1024, 4, 32); }},
    {"linear_int4_64_rows", [](int64_t n) { run_linear(n, 64, 64, 4, 32); }},
    {"linear_int8_1_row", [](int64_t n) { run_linear(n, 1, 1024, 8, 32); }},
    {"linear_int8_64_rows", [](int64_t n) { run_linear(n, 64, 64, 8, 32); }},
    {"linear_int8_channel_64_rows", [](int64_t n) { run_linear(n, 64, 64, 8, 0); }},
    {"logits_int4", [](int64_t n) { run_linear(n, 1, 2048, 4, 32); }},
    {"logits_int8", [](int64_t n) { run_linear(n, 1, 2048, 8, 32); }},
    {"merged_attention_128_self_256_cross", [](int64_t n) { run_merged_attention(n, 128, 256); }},
    {"quantize_16_rows", [](int64_t n) { run_quantize(n, 16); }},
    {"rms_norm", [](int64_t n) { run_norm(n, false); }},
    {"store_entry", [](int64_t n) { run_store_entry(n); }},
};

int run(int argc, char** argv) {
  if (argc == 1) {
    std::puts(T5G2_COMPILER);
    for (const Case& c : kCases) std::puts(c.name);
    return 0;
  }
  const char* wanted = std::getenv("T5G2_CPU");
  if (wanted && std::strcmp(wanted, kernels().name) != 0) return 2;  // counts would be those of other kernels
  for (const Case& c : kCases) {
    if (argc == 3 && std::strcmp(argv[1], c.name) == 0) {
      c.run(std::atoll(argv[2]));
      return 0;
    }
  }
  std::fprintf(stderr, "usage: kernel_instructions [CASE REPEATS]\n");
  return 2;
}

}  // namespace
}  // namespace t5g2

int main(int argc, char** argv) { return t5g2::run(argc, argv); }
