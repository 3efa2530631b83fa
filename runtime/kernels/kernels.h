// The kernels that differ by instruction set, as a table of functions that is chosen once at run time.
//
// Everything else (threads, loops over rows and blocks, checks) is written once, in linear.cpp, attention.cpp, ….

#pragma once

#include <cstddef>
#include <cstdint>

namespace t5g2 {

constexpr int64_t kBlockRows = 16;  // rows of a packed block, and lanes of a result
constexpr int64_t kTileRows = 16;   // activation rows are padded to this, so that a kernel may read whole tiles

// One packed block times `rows` rows of activations, before the activations' scale: out[r][n], n < 16, is
// the sum over groups of scale[g][n] * (integer dot product of the group), added in order by fused multiply-add.
struct DotArguments {
  const uint8_t* weights;    // the block's weights, see quant/packed.py
  const uint16_t* scales;    // bfloat16 [groups][16]
  int64_t columns;           // K, padded to whole groups
  int64_t group;             // columns a scale covers
  int64_t groups;
  const void* x;             // int8 [rows][stride]; float [rows][stride] for float32 weights; tiles for dot_bf16, see to_bf16
  int64_t stride;            // columns rounded up to 64
  const int32_t* starts;     // [rows][groups]: what a sum starts from where weights are multiplied as unsigned numbers, too
                             // large by 8 (int4) or 128 (int8): -8 or -128 times the group's sum
  int64_t rows;
  uint8_t* scratch;          // 16 * (columns rounded up to 64) elements of x's size, 64-byte aligned, the thread's own
  bool unpacked;             // `unpack` has filled scratch with this block
  float* out;                // [rows rounded up to kTileRows][16]
  int64_t pair = 0;          // of pair_...: bytes from this block to the other one (pair_bf16: in scratch), and floats from
  int64_t pair_out = 0;      // its result to the other's
};

// What happens to `out` of DotArguments on its way to the result.
struct StoreArguments {
  const float* dot;          // [blocks][block_rows][16]
  int64_t block_rows;
  bool gated;                // blocks alternate gate and up, and make half as many columns: gelu(gate) * up
  const float* row_scales;   // [rows]; null for float32 weights
  const float* bias;         // [columns]; may be null
  bool gelu;
  int64_t rows;
  int64_t columns;           // of the result that these blocks make
  float* out;                // [rows][stride]
  int64_t stride;            // of the result, in elements
};

// Attention of an encoder over a whole source. Buffers are laid out by the kernel: `pack` fills them, `run` reads them.
struct AttentionArguments {
  const float* qkv;          // [length][(heads + 2 kv heads) * d]
  const float* cos;          // [length][d / 2]; null for no rotary positions
  const float* sin;
  const float* q_norm;       // [d]; null for no norms
  const float* k_norm;
  float eps;
  float scale;
  int64_t length;
  int64_t heads;
  int64_t kv_heads;
  int64_t d;
  int64_t window;            // 0: every query sees every key
  uint8_t* packed;           // attention_bytes() of them, 64-byte aligned
  uint8_t* scratch;          // attention_scratch() of them, 64-byte aligned, the thread's own
  float* out;                // [length][heads * d]
};

// One stretch of keys and values, read for a group of queries whose state carries over from stretch to stretch.
struct StretchArguments {
  const float* q;            // [queries][d], scaled
  int64_t queries;           // at most kMaxQueries
  const void* keys;          // [count][d], float16 or float
  const void* values;
  bool half;
  int64_t count;
  int64_t d;                 // a multiple of 16
  float* max;                // [queries]: the largest score so far
  float* sum;                // [queries]: of exp(score - max)
  float* mixed;              // [queries][d]: of exp(score - max) * value
};
constexpr int64_t kMaxQueries = 4;

constexpr int64_t kMostHeadsAtOnce = 8;

// How many heads one call of attention_run answers. Those that share keys and values read them together: a long source's do
// not stay in a core's cache from head to head.
static inline int64_t heads_together(const AttentionArguments& a) {
  return a.heads / a.kv_heads <= kMostHeadsAtOnce ? a.heads / a.kv_heads : 1;
}

struct Kernels {
  const char* name;

  // Symmetric int8: q = round-half-even(x * (127 / amax)), scale = amax / 127. Zeroes q up to `stride`.
  void (*quantize_row)(const float* x, int64_t columns, int64_t group, int64_t groups, int64_t stride, int8_t* q,
                       int32_t* sums, float* scale);
  // With many rows, a block may be unpacked once and then multiplied with some rows after others. May be null.
  void (*unpack_int4)(const DotArguments&);
  void (*unpack_int8)(const DotArguments&);
  void (*finish)();  // after the last of a thread's products or queries; may be null
  void (*dot_int4)(const DotArguments&);
  void (*dot_int8)(const DotArguments&);
  // One row times two blocks, read in turn: memory delivers two streams faster than one. May be null.
  void (*pair_int4)(const DotArguments&);
  void (*pair_int8)(const DotArguments&);
  void (*dot_float)(const DotArguments&);
  // Many rows times grouped weights in bfloat16, where that is faster than int8, which must scale every group's sum: the
  // activations are not quantized but rounded, and so are the dequantized weights. All null elsewhere.
  // Row `row` of tiles [rows / 16][stride / 32][16][32], zero beyond n.
  void (*to_bf16)(const float* x, int64_t n, int64_t stride, int64_t row, uint16_t* tiles);
  void (*unpack_bf16_int4)(const DotArguments&);
  void (*unpack_bf16_int8)(const DotArguments&);
  void (*dot_bf16)(const DotArguments&);   // of unpacked blocks
  void (*pair_bf16)(const DotArguments&);  // of two of them
  void (*store)(const StoreArguments&);

  void (*rms_norm_row)(const float* x, const float* weight, float eps, int64_t n, float* out);
  // sum = residual + rms_norm(x) * post_weight; out = rms_norm(sum) * weight
  void (*add_rms_norm_row)(const float* residual, const float* x, const float* post_weight, const float* weight,
                           float eps, int64_t n, float* sum, float* out);
  // sum = residual + x; out = layer_norm(sum)
  void (*add_layer_norm_row)(const float* residual, const float* x, const float* weight, const float* bias, float eps,
                             int64_t n, float* sum, float* out);
  // out = rotate(rms_norm(x) * norm) * scale over one head; norm and cos may be null
  void (*norm_rotate)(const float* x, const float* norm, float eps, const float* cos, const float* sin, int64_t d,
                      float scale, float* out);
  void (*to_half)(const float* x, int64_t n, uint16_t* out);  // saturates

  int64_t attention_tile;  // queries that one call of attention_run answers
  size_t (*attention_bytes)(const AttentionArguments&);
  size_t (*attention_scratch)(const AttentionArguments&);
  void (*attention_pack)(const AttentionArguments&, int64_t first, int64_t last);  // rows; multiples of 32 but the last
  // Queries first .. first + tile of `heads` heads from `head` on, all of one kv head and at most kMostHeadsAtOnce.
  void (*attention_run)(const AttentionArguments&, int64_t head, int64_t heads, int64_t first);

  void (*stretch)(const StretchArguments&);
};

// The table for this CPU, or for the one that the environment variable T5G2_CPU names. `exact` asks for attention in
// float32 throughout.
const Kernels& kernels(bool exact = false);

// Changes the choice, for tests. False where this CPU has no kernels of that name.
bool use_kernels(const char* name);

// Names that T5G2_CPU takes and this CPU runs, best last; null-terminated.
const char* const* available_kernels();

}  // namespace t5g2
