// Integer matrix products of each kind of kernels, one thread: `kernel_speed`. 256 rows of activations times 640 rows of
// weights; GOP/s count a multiply and an add as two. Also the CPU's peak for 512-bit dot products, to compare with.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "runtime/kernels/kernels.h"
#include "runtime/kernels/linear.h"
#include "runtime/kernels/packed.h"

using Clock = std::chrono::steady_clock;

namespace {

constexpr int64_t kRows = 256, kWeightRows = 640;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Of as many runs as fit a third of a second, so that clocks have settled.
double best_seconds(auto run) {
  double best = 1e9;
  const auto begin = Clock::now();
  for (int i = 0; i < 9 || since(begin) < 0.3; ++i) {
    const auto start = Clock::now();
    run();
    best = std::min(best, since(start));
  }
  return best;
}

#if defined(__x86_64__)
__attribute__((target("avx512f,avx512vnni"))) double vnni_peak() {
  typedef int v16 __attribute__((vector_size(64)));
  constexpr int64_t kRounds = 5'000'000;
  return 2.0 * 64 * 12 * kRounds / best_seconds([] __attribute__((target("avx512f,avx512vnni"))) {
           v16 weights = {}, s[12] = {};
           for (int64_t i = 0; i < kRounds; ++i) {
             for (auto& sum : s) asm volatile("vpdpbusd %1, %1, %0" : "+v"(sum) : "v"(weights));
           }
         });
}
#endif

double gops(const t5g2::Kernels& k, int bits, int64_t columns, int64_t group) {
  t5g2::Packed w{nullptr, kWeightRows, columns, bits, group};
  std::vector<uint8_t> memory(w.bytes() + 64);
  uint8_t* data = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64);
  for (int64_t i = 0; i < w.bytes(); ++i) data[i] = uint8_t(i * 2654435761u >> 13);
  w.data = data;
  for (int64_t block = 0; block < w.blocks(); ++block) {  // scales of 2^-7: random bits would be slow numbers
    std::fill_n(const_cast<uint16_t*>(w.scales(block)), 16 * w.groups(), uint16_t(0x3c00));
  }
  const int64_t stride = (w.padded_columns() + 63) / 64 * 64;
  std::vector<float> x(kRows * columns, 1.0f);
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(int(i * 7919 % 255) - 127);
  std::vector<int8_t> q(kRows * stride);
  std::vector<uint16_t> rounded(kRows * stride);
  std::vector<int32_t> starts(kRows * w.groups());
  std::vector<float> out(2 * kRows * 16);
  float scale;
  for (int64_t r = 0; r < kRows; ++r) {
    k.quantize_row(x.data() + r * columns, columns, w.group(), w.groups(), stride, q.data() + r * stride,
                   starts.data() + r * w.groups(), &scale);
    if (k.to_bf16) k.to_bf16(x.data() + r * columns, columns, stride, r, rounded.data());
  }
  for (int32_t& start : starts) start *= bits == 4 ? -8 : -128;
  const int64_t unpacked = 32 * stride;  // bytes of a block, at most
  auto* scratch = static_cast<uint8_t*>(std::aligned_alloc(64, 2 * unpacked));
  const bool wide = k.dot_bf16 && w.groups() > 1;
  const auto unpack_int4 = wide ? k.unpack_bf16_int4 : k.unpack_int4;
  const auto unpack = bits == 8 ? (wide ? k.unpack_bf16_int8 : k.unpack_int8) : unpack_int4;
  const auto dot = wide ? k.pair_bf16 : bits == 4 ? k.dot_int4 : k.dot_int8;  // as `linear` does
  const int64_t blocks_at_once = wide ? 2 : 1, rows_at_once = wide ? t5g2::kTiledRowsAtOnce : t5g2::kRowsAtOnce;
  const double seconds = best_seconds([&] {
    for (int64_t block = 0; block < w.blocks(); block += blocks_at_once) {
      t5g2::DotArguments a{};
      a.columns = w.padded_columns();
      a.group = w.group();
      a.groups = w.groups();
      a.stride = stride;
      a.unpacked = unpack != nullptr;
      a.pair = unpacked;
      a.pair_out = kRows * 16;
      for (int64_t i = blocks_at_once; i-- > 0;) {  // the first one last: it stays chosen
        a.weights = w.block(block + i);
        a.scales = w.scales(block + i);
        a.scratch = scratch + i * unpacked;
        if (unpack) unpack(a);
      }
      for (int64_t row = 0; row < kRows; row += rows_at_once) {
        a.x = wide ? static_cast<void*>(rounded.data() + row * stride) : q.data() + row * stride;
        a.starts = starts.data() + row * w.groups();
        a.rows = std::min(rows_at_once, kRows - row);
        a.out = out.data();
        dot(a);
      }
    }
    if (k.finish) k.finish();
  });
  std::free(scratch);
  return 2.0 * kRows * kWeightRows * double(columns) / seconds / 1e9;
}

}  // namespace

int main() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512vnni")) {
    std::printf("{\"kernels\": \"peak of vpdpbusd\", \"gop_s\": %.0f}\n", vnni_peak() / 1e9);
  }
#endif
  for (const char* const* name = t5g2::available_kernels(); *name; ++name) {
    t5g2::use_kernels(*name);
    for (int bits : {4, 8}) {
      for (int64_t columns : {640, 2048}) {
        for (int64_t group : {32, 0}) {
          std::printf("{\"kernels\": \"%s\", \"bits\": %d, \"columns\": %d, \"group\": %d, \"gop_s\": %.0f}\n", *name, bits,
                      int(columns), int(group), gops(t5g2::kernels(), bits, columns, group));
          std::fflush(stdout);
        }
      }
    }
  }
}
