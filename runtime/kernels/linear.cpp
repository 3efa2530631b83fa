#include "linear.h"

#include <algorithm>

#include "kernels.h"
#include "threads.h"

namespace t5g2 {
namespace {

constexpr int64_t kBlocksAtOnce = 8;        // that rows are multiplied with before they are stored, side by side
constexpr int64_t kStreamedBlocks = 32;     // the same for one row in two streams: each is half of them
constexpr int64_t kSliceBytes = 1 << 20;    // of activations: they stay in the second cache while all blocks pass by
constexpr int64_t kTiledSliceBytes = 640 << 10;  // the same for tiles of bfloat16, beside more results
constexpr int64_t kPieceBytes = 32 * 1024;  // of weights that a thread takes at a time, at least
constexpr int64_t kRowsPerTask = 8;         // that a thread quantizes at a time

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

bool tiled(const Activations& x) { return x.size == sizeof(uint16_t); }

int64_t rows_at_once(const Activations& x) { return tiled(x) ? kTiledRowsAtOnce : kRowsAtOnce; }

// Whether many rows are multiplied with such weights in tiles of bfloat16.
bool multiplied_in_bf16(const Packed& w) { return kernels().dot_bf16 && w.groups() > 1; }

}  // namespace

Activations prepare(const float* x, int64_t rows, const Packed& weights) {
  static thread_local Buffer buffer;
  const int64_t columns = weights.columns;
  const int64_t padded_rows = round_up(rows, kTileRows);
  if (weights.bits == 32) return {rows, columns, x, sizeof(float), nullptr, nullptr};

  const int64_t stride = round_up(weights.padded_columns(), 64), groups = weights.groups();
  const Kernels& k = kernels();
  if (multiplied_in_bf16(weights) && rows >= kTileRows) {
    uint16_t* rounded = reinterpret_cast<uint16_t*>(buffer.reserve(2 * padded_rows * stride));
    parallel(rows, kRowsPerTask, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) k.to_bf16(x + r * columns, columns, stride, r, rounded);
    });
    return {rows, stride, rounded, sizeof(uint16_t), nullptr, nullptr};
  }
  const int64_t starts_at = padded_rows * stride, scales_at = starts_at + 4 * rows * groups;
  uint8_t* memory = buffer.reserve(scales_at + 4 * rows);
  int8_t* q = reinterpret_cast<int8_t*>(memory);
  int32_t* starts = reinterpret_cast<int32_t*>(memory + starts_at);
  float* scales = reinterpret_cast<float*>(memory + scales_at);
  const int32_t offset = weights.bits == 4 ? -8 : -128;
  parallel(rows, kRowsPerTask, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      k.quantize_row(x + r * columns, columns, weights.group(), groups, stride, q + r * stride, starts + r * groups,
                     scales + r);
      for (int64_t i = r * groups; i < (r + 1) * groups; ++i) starts[i] *= offset;  // they were sums
    }
  });
  return {rows, stride, q, sizeof(int8_t), starts, scales};
}

int64_t slice_rows(const Packed& w) {
  const bool wide = multiplied_in_bf16(w);
  const int64_t at_once = wide ? kTiledRowsAtOnce : kRowsAtOnce, bytes = wide ? kTiledSliceBytes : kSliceBytes;
  const int64_t size = w.bits == 32 ? sizeof(float) : wide ? sizeof(uint16_t) : sizeof(int8_t);
  const int64_t enough = (wide ? 2 : 5) * at_once;  // to be worth unpacking all blocks for
  return std::max(enough, bytes / (w.padded_columns() * size) / at_once * at_once);
}

void linear(const float* x, int64_t rows, const LinearArguments& a) {
  by_slices(rows, a.weights, [&](int64_t first, int64_t count) {
    LinearArguments part = a;
    part.out += first * a.stride;
    linear(prepare(x + first * a.weights.columns, count, a.weights), part);
  });
}

void linear(const Activations& x, const LinearArguments& a) {
  const Kernels& k = kernels();
  const Packed& w = a.weights;
  const bool wide = tiled(x);
  void (*dot)(const DotArguments&) = k.dot_float;
  void (*pair)(const DotArguments&) = nullptr;
  void (*unpack)(const DotArguments&) = nullptr;
  const bool streamed = x.rows == 1 && w.bits < 32;
  if (wide) {
    dot = k.dot_bf16;
    pair = k.pair_bf16;
    unpack = w.bits == 4 ? k.unpack_bf16_int4 : k.unpack_bf16_int8;
  } else if (w.bits < 32) {
    dot = w.bits == 4 ? k.dot_int4 : k.dot_int8;
    if (streamed) pair = w.bits == 4 ? k.pair_int4 : k.pair_int8;
    if (x.rows >= kTileRows) unpack = w.bits == 4 ? k.unpack_int4 : k.unpack_int8;
  }
  const int64_t at_once = streamed && pair ? kStreamedBlocks : kBlocksAtOnce;
  const int64_t step = a.gated ? 2 : 1;  // blocks that make 16 columns of the result
  const int64_t units = (a.rows + kBlockRows - 1) / kBlockRows;
  const int64_t per_thread = (units + 4 * threads() - 1) / (4 * threads());
  const int64_t enough = kPieceBytes / (step * w.block_bytes()) + 1;
  int64_t piece = x.rows < kTileRows ? std::max(enough, per_thread) : std::min(kBlocksAtOnce / step, per_thread);
  if (wide && !a.gated && piece > 1) piece -= piece % 2;  // blocks go in pairs

  parallel(units, piece, [&](int64_t first, int64_t last) {
    static thread_local Buffer unpacked, results;
    const int64_t block_rows = std::min(round_up(x.rows, kTileRows), rows_at_once(x));
    DotArguments d{};
    d.columns = w.padded_columns();
    d.group = w.group();
    d.groups = w.groups();
    d.stride = x.stride;
    d.unpacked = unpack != nullptr;
    const int64_t scratch = 16 * round_up(d.columns, 64) * x.size;
    uint8_t* weights = unpacked.reserve((unpack ? kBlocksAtOnce : 1) * scratch);
    float* out = reinterpret_cast<float*>(results.reserve(at_once * block_rows * kBlockRows * sizeof(float)));
    StoreArguments s{};
    s.dot = out;
    s.block_rows = block_rows;
    s.gated = a.gated;
    s.gelu = a.gelu;
    s.stride = a.stride;
    for (int64_t unit = first; unit < last; unit += at_once / step) {
      const int64_t blocks = std::min(at_once, (last - unit) * step);
      const int64_t first_block = a.first_block + unit * step, column = unit * kBlockRows;
      const auto select = [&](int64_t block) {
        d.weights = w.block(first_block + block);
        d.scales = w.scales(first_block + block);
        d.scratch = weights + (unpack ? block * scratch : 0);
        d.out = out + block * block_rows * kBlockRows;
      };
      for (int64_t block = 0; unpack && block < blocks; ++block) {
        select(block);
        unpack(d);
      }
      s.columns = std::min(a.rows - column, blocks / step * kBlockRows);
      s.bias = a.bias ? a.bias + column : nullptr;
      for (int64_t row = 0; row < x.rows; row += block_rows) {
        d.rows = s.rows = std::min(block_rows, x.rows - row);
        d.x = static_cast<const uint8_t*>(x.x) + row * x.stride * x.size;
        d.starts = x.starts ? x.starts + row * d.groups : nullptr;
        s.row_scales = x.scales ? x.scales + row : nullptr;
        const int64_t pairs = pair ? blocks / 2 : 0;
        d.pair = pairs * (unpack ? scratch : w.block_bytes());
        d.pair_out = pairs * block_rows * kBlockRows;
        for (int64_t block = 0; block < pairs; ++block) {
          select(block);
          pair(d);
        }
        for (int64_t block = 2 * pairs; block < blocks; ++block) {
          select(block);
          dot(d);
        }
        s.out = a.out + row * a.stride + column;
        k.store(s);
      }
    }
    if (k.finish) k.finish();
  });
}

}  // namespace t5g2
