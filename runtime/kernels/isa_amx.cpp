// x86-64 with AMX (int8 and bfloat16 tiles) beside AVX512-VNNI: matrix products of 16 rows and more, and attention.

#define T5G2_ISA amx
namespace t5g2::amx {
constexpr int kAttentionRows = 8;
}
#include "float_kernels.h"
#include "tables.h"
#include "vnni.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace t5g2::amx {

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
  void set(int tile, int row_count, int bytes) {
    rows[tile] = uint8_t(row_count);
    row_bytes[tile] = uint16_t(bytes);
  }
};

// Whether this thread's tiles are set up, all of 16 rows of 64 bytes: that costs as much as a small product.
static thread_local bool tiles_set_up = false;

static void set_up_tiles() {
  if (tiles_set_up) return;
  TileConfig config;
  for (int t = 0; t < 8; ++t) config.set(t, 16, 64);
  _tile_loadconfig(&config);
  tiles_set_up = true;
}

static void release_tiles() {
  _tile_release();
  tiles_set_up = false;
}

// ---- integer products ----------------------------------------------------------------------------------------------

// One group over all columns: up to four tiles of rows share each tile of weights.
template <int Tiles>
T5G2_INLINE void dot_channel(const DotArguments& a, int64_t r0, int64_t columns) {
  alignas(64) int32_t sum[16][16];
  const int8_t* x = (const int8_t*)a.x + r0 * a.stride;
  const int64_t tile = 16 * a.stride;
  _tile_zero(0);
  if (Tiles > 1) _tile_zero(1);
  if (Tiles > 2) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t k = 0; k < columns; k += 64) {
    _tile_loadd(5, a.scratch + 16 * k, 64);
    _tile_loadd(4, x + k, a.stride);
    _tile_dpbssd(0, 4, 5);
    if (Tiles > 1) {
      _tile_loadd(6, x + k + tile, a.stride);
      _tile_dpbssd(1, 6, 5);
    }
    if (Tiles > 2) {
      _tile_loadd(4, x + k + 2 * tile, a.stride);
      _tile_dpbssd(2, 4, 5);
      _tile_loadd(6, x + k + 3 * tile, a.stride);
      _tile_dpbssd(3, 6, 5);
    }
  }
  const __m512 scale = (__m512)load_bf16(a.scales);
  for (int t = 0; t < Tiles; ++t) {
    switch (t) {
      case 0: _tile_stored(0, sum, 64); break;
      case 1: _tile_stored(1, sum, 64); break;
      case 2: _tile_stored(2, sum, 64); break;
      default: _tile_stored(3, sum, 64);
    }
    for (int r = 0; r < 16; ++r) {
      const __m512 y = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sum[r])), scale);
      _mm512_storeu_ps(a.out + 16 * (r0 + 16 * t + r), y);
    }
  }
}

// Groups are left to AVX512-VNNI here: `linear` multiplies them in bfloat16, see below.
static bool one_group(const DotArguments& a) { return a.groups == 1; }

template <int Bits>
static void unpack_tiles(const DotArguments& a) {
  if (!one_group(a)) return unpack_vnni<Bits>(a);
  unpack_block<Bits, Bits == 4 ? -8 : 0>(a);
  memset(a.scratch + 16 * a.columns, 0, 16 * (-a.columns & 63));
}

template <int Bits>
static void dot_tiles(const DotArguments& a) {
  if (!one_group(a) || (!a.unpacked && a.rows < kTileRows)) return dot_vnni<Bits>(a);
  if (!a.unpacked) unpack_tiles<Bits>(a);
  const int64_t columns = (a.columns + 63) / 64 * 64;
  set_up_tiles();
  int64_t r = 0;
  for (; r + 64 <= a.rows; r += 64) dot_channel<4>(a, r, columns);
  for (; r + 16 < a.rows; r += 32) dot_channel<2>(a, r, columns);
  for (; r < a.rows; r += 16) dot_channel<1>(a, r, columns);
}

// ---- grouped weights in bfloat16 -----------------------------------------------------------------------------------

// Tiles of int8 sums must be stored, scaled and added after every group of 32; tiles of floats run on over all columns,
// which is three times as fast.

T5G2_INLINE __m512i round_bf16(__m512 x) {  // in the upper halves, magnitudes rounded half up
  return _mm512_add_epi32((__m512i)x, _mm512_set1_epi32(0x8000));
}

// Columns k .. k + 3 of 16 rows, as integers in the bytes of 32-bit lanes -> two lines of pairs.
template <int Bits>
T5G2_INLINE void unpack_four(__m512i bytes, __m512 scale, __m512 offset, uint8_t* out) {
  __m512i column[4];
  for (int i = 0; i < 4; ++i) {
    const __m512i value = Bits == 4 ? _mm512_and_si512(_mm512_srli_epi32(bytes, 8 * i), _mm512_set1_epi32(15))
                                    : _mm512_srai_epi32(_mm512_slli_epi32(bytes, 24 - 8 * i), 24);
    column[i] = round_bf16(_mm512_fmadd_ps(_mm512_cvtepi32_ps(value), scale, offset));
  }
  for (int i = 0; i < 2; ++i) {
    const __m512i pair = _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(column[2 * i], 16), column[2 * i + 1]);
    _mm512_store_si512(out + 64 * i, pair);
  }
}

// The block as bfloat16 [columns / 2][16][2], zero up to a multiple of 32 columns (groups are such multiples).
template <int Bits>
static void unpack_bf16(const DotArguments& a) {
  const __m512i low = _mm512_set1_epi8(15);
  for (int64_t g = 0; g < a.groups; ++g) {
    const __m512 scale = (__m512)load_bf16(a.scales + 16 * g);
    const __m512 offset = _mm512_mul_ps(scale, _mm512_set1_ps(Bits == 4 ? -8.0f : 0.0f));
    for (int64_t k = g * a.group; k < (g + 1) * a.group; k += 8) {
      uint8_t* out = a.scratch + 32 * k;
      for (int line = 0; line < 16 * Bits; line += 64) _mm_prefetch(a.weights + 2 * Bits * k + kPrefetch + line, _MM_HINT_T0);
      if (Bits == 4) {
        const __m512i both = load64(a.weights + 8 * k);
        unpack_four<4>(_mm512_and_si512(both, low), scale, offset, out);
        unpack_four<4>(_mm512_and_si512(_mm512_srli_epi16(both, 4), low), scale, offset, out + 128);
      } else {
        unpack_four<8>(load64(a.weights + 16 * k), scale, offset, out);
        unpack_four<8>(load64(a.weights + 16 * k + 64), scale, offset, out + 128);
      }
    }
  }
}

// Two tiles of rows by two blocks: each of the four tiles that are loaded is multiplied twice. Adds to `out` but for the first
// columns. Rows are loaded with the hint that they need not stay in the first cache, so that the blocks do: a fifth faster.
template <int Tiles, int Blocks>
T5G2_INLINE void dot_bf16_tiles(const DotArguments& a, int64_t r0, int64_t first, int64_t last) {
  const uint16_t* x = (const uint16_t*)a.x + r0 * a.stride;
  const uint8_t* w = a.scratch;
  float* out = a.out + 16 * r0;
  if (first) {
    _tile_loadd(0, out, 64);
    if (Blocks > 1) _tile_loadd(1, out + a.pair_out, 64);
    if (Tiles > 1) _tile_loadd(2, out + 256, 64);
    if (Tiles > 1 && Blocks > 1) _tile_loadd(3, out + a.pair_out + 256, 64);
  } else {
    _tile_zero(0);
    if (Blocks > 1) _tile_zero(1);
    if (Tiles > 1) _tile_zero(2);
    if (Tiles > 1 && Blocks > 1) _tile_zero(3);
  }
  for (int64_t k = first; k < last; k += 32) {
    _tile_stream_loadd(4, x + 16 * k, 64);
    _tile_loadd(6, w + 32 * k, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (Blocks > 1) {
      _tile_loadd(7, w + a.pair + 32 * k, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if (Tiles > 1) {
      _tile_stream_loadd(5, x + 16 * (a.stride + k), 64);
      _tile_dpbf16ps(2, 5, 6);
      if (Blocks > 1) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, out, 64);
  if (Blocks > 1) _tile_stored(1, out + a.pair_out, 64);
  if (Tiles > 1) _tile_stored(2, out + 256, 64);
  if (Tiles > 1 && Blocks > 1) _tile_stored(3, out + a.pair_out + 256, 64);
}

// Columns of two blocks that stay in the first cache, at 2 KB for 32 columns, while rows pass by.
constexpr int64_t kColumnsAtOnce = 640;

template <int Blocks>
static void dot_bf16(const DotArguments& a) {
  set_up_tiles();
  const int64_t pieces = (a.columns + kColumnsAtOnce - 1) / kColumnsAtOnce;
  const int64_t step = (a.columns + 32 * pieces - 1) / (32 * pieces) * 32;
  for (int64_t first = 0; first < a.columns; first += step) {
    const int64_t last = first + step < a.columns ? first + step : a.columns;
    int64_t r = 0;
    for (; r + 16 < a.rows; r += 32) dot_bf16_tiles<2, Blocks>(a, r, first, last);
    if (r < a.rows) dot_bf16_tiles<1, Blocks>(a, r, first, last);
  }
}

T5G2_INLINE void to_bf16(const float* x, uint16_t* out) {
  const __m256bh v = _mm512_cvtneps_pbh(_mm512_loadu_ps(x));
  memcpy(out, &v, 32);
}

static void to_bf16_row(const float* x, int64_t n, int64_t stride, int64_t row, uint16_t* out) {
  out += row / 16 * 16 * stride + row % 16 * 32;
  const auto at = [&](int64_t i) { return out + i / 32 * 512 + i % 32; };
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) to_bf16(x + i, at(i));
  if (i < n) {
    const f32x16 rest = load_part(x + i, n - i);
    to_bf16((const float*)&rest, at(i));
    i += 16;
  }
  for (; i < stride; i += 16) memset(at(i), 0, 32);
}

// ---- attention in bfloat16 -----------------------------------------------------------------------------------------
//
// Packed: queries [heads][length rounded up to 32][D], normed, rotated, scaled; keys as tiles
// [kv heads][length / 16][D / 2][16 keys][2]; values [kv heads][length / 2][d rounded up to 16][2 keys]. D is d rounded up
// to 32, the length up to 32; padding is zero.

struct Tiled {
  int64_t wide, columns, length;  // D, d rounded up to 16, length rounded up
  uint16_t *q, *k, *v;
  explicit Tiled(const AttentionArguments& a) {
    wide = (a.d + 31) / 32 * 32;
    columns = (a.d + 15) / 16 * 16;
    length = (a.length + 31) / 32 * 32;
    q = (uint16_t*)a.packed;
    k = q + a.heads * length * wide;
    v = k + a.kv_heads * length * wide;
  }
};

// Scores are in units of ln 2: queries are packed times log2(e).
constexpr float kLog2E = 1.44269504f;

// 2^x for x <= 0, but at least 2^-120, as what is masked must not become a subnormal number, which takes a hundred cycles. With
// an error of 2.6e-6 relative, a thousandth of what rounding to bfloat16 adds.
T5G2_INLINE __m512 rough_power_of_two(__m512 x) {
  x = _mm512_max_ps(x, _mm512_set1_ps(-120.0f));
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, n);
  __m512 p = _mm512_fmadd_ps(f, _mm512_set1_ps(0.0095701014f), _mm512_set1_ps(0.05591786f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.24024745f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69312181f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.99999926f));
  return _mm512_scalef_ps(p, n);
}

constexpr int64_t kTileQueries = 32;
constexpr int64_t kChunkKeys = 256;

static size_t tiled_bytes(const AttentionArguments& a) {
  const Tiled p(a);
  return 2 * (a.heads * p.length * p.wide + a.kv_heads * p.length * (p.wide + p.columns));
}

static size_t tiled_scratch(const AttentionArguments& a) {
  const Tiled p(a);
  return kTileQueries * (kChunkKeys * (4 + 2) + heads_together(a) * p.columns * 4) + 4 * p.wide + 64;
}

static void tiled_pack(const AttentionArguments& a, int64_t first, int64_t last) {
  const Tiled p(a);
  const int64_t row_stride = (a.heads + 2 * a.kv_heads) * a.d, half = a.d / 2;
  const int64_t end = last == a.length ? p.length : last;
  float* row = (float*)a.scratch;  // [D]
  memset(row, 0, sizeof(float) * p.wide);
  for (int64_t i = first; i < end; ++i) {
    const float* source = a.qkv + i * row_stride;
    const float* cos = a.cos ? a.cos + i * half : nullptr;
    const float* sin = a.cos ? a.sin + i * half : nullptr;
    if (i >= last) memset(row, 0, sizeof(float) * p.wide);
    for (int64_t h = 0; h < a.heads; ++h) {
      if (i < last) norm_rotate(source + h * a.d, a.q_norm, a.eps, cos, sin, a.d, a.scale * kLog2E, row);
      for (int64_t x = 0; x < p.wide; x += 16) to_bf16(row + x, p.q + (h * p.length + i) * p.wide + x);
    }
    for (int64_t h = 0; h < a.kv_heads; ++h) {
      if (i < last) norm_rotate(source + (a.heads + h) * a.d, a.k_norm, a.eps, cos, sin, a.d, 1.0f, row);
      uint16_t* k = p.k + (h * p.length + i / 16 * 16) * p.wide + i % 16 * 2;
      for (int64_t x = 0; x < p.wide; x += 16) {
        uint32_t pairs[8];  // two columns of one key side by side
        to_bf16(row + x, (uint16_t*)pairs);
        for (int j = 0; j < 8; ++j) memcpy(k + (x / 2 + j) * 32, &pairs[j], 4);
      }
      if (i < last) memcpy(row, source + (a.heads + a.kv_heads + h) * a.d, sizeof(float) * a.d);
      uint16_t* v = p.v + (h * p.length + i / 2 * 2) * p.columns + i % 2;
      for (int64_t x = 0; x < p.columns; x += 16) {
        uint16_t values[16];
        to_bf16(row + x, values);
        for (int j = 0; j < 16; ++j) v[2 * (x + j)] = values[j];
      }
    }
  }
}

// The running softmax of a tile of queries of one head.
struct HeadState {
  float max[kTileQueries];
  float sum[kTileQueries];
  float* mixed;  // [32][columns]
};

// Which keys the queries first .. first + 31 see: `left` before their own and `right` after.
struct Sight {
  int64_t first, left, right;
};

// Adds the keys chunk .. chunk + keys to the state of one head.
static void tiled_chunk(const AttentionArguments& a, const Tiled& p, const Sight& sight, int64_t kv, const uint16_t* q,
                        int64_t chunk, int64_t keys, float* scores, uint16_t* weights, HeadState& state) {
  const int64_t first = sight.first, left = sight.left, right = sight.right, last = first + kTileQueries - 1;
  float* mixed = state.mixed;
  for (int64_t j = 0; j < keys; j += 32) {
    const uint16_t* k = p.k + (kv * p.length + chunk + j) * p.wide;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t x = 0; x < p.wide; x += 32) {
      _tile_loadd(4, q + x, 2 * p.wide);
      _tile_loadd(5, q + 16 * p.wide + x, 2 * p.wide);
      _tile_loadd(6, k + x * 16, 64);
      _tile_loadd(7, k + 16 * p.wide + x * 16, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, scores + j, 4 * kChunkKeys);
    _tile_stored(1, scores + j + 16, 4 * kChunkKeys);
    _tile_stored(2, scores + 16 * kChunkKeys + j, 4 * kChunkKeys);
    _tile_stored(3, scores + 16 * kChunkKeys + j + 16, 4 * kChunkKeys);
  }
  const bool inside = chunk >= last - left && chunk + keys - 1 <= first + right && chunk + keys <= a.length;
  for (int r = 0; r < kTileQueries; ++r) {
    float* row = scores + r * kChunkKeys;
    if (!inside) {
      const int64_t low = first + r - left - chunk;
      int64_t high = first + r + right + 1 < a.length ? first + r + right + 1 - chunk : a.length - chunk;
      for (int64_t j = 0; j < low && j < keys; ++j) row[j] = -__builtin_inff();
      for (int64_t j = high > 0 ? high : 0; j < keys; ++j) row[j] = -__builtin_inff();
    }
    __m512 largest = _mm512_loadu_ps(row);
    for (int64_t j = 16; j < keys; j += 16) largest = _mm512_max_ps(_mm512_loadu_ps(row + j), largest);
    const float block = _mm512_reduce_max_ps(largest);
    if (block == -__builtin_inff()) {
      memset(weights + r * kChunkKeys, 0, 2 * keys);
      continue;
    }
    const float best = block > state.max[r] ? block : state.max[r];
    const float shrink = _mm512_cvtss_f32(rough_power_of_two(_mm512_set1_ps(state.max[r] - best)));
    __m512 total = _mm512_setzero_ps();
    for (int64_t j = 0; j < keys; j += 16) {
      const __m512 e = rough_power_of_two(_mm512_sub_ps(_mm512_loadu_ps(row + j), _mm512_set1_ps(best)));
      total = _mm512_add_ps(total, e);
      const __m256bh rounded = _mm512_cvtneps_pbh(e);
      memcpy(weights + r * kChunkKeys + j, &rounded, 32);
    }
    state.sum[r] = state.sum[r] * shrink + _mm512_reduce_add_ps(total);
    state.max[r] = best;
    if (shrink != 1.0f) {
      for (int64_t x = 0; x < p.columns; x += 16) store(mixed + r * p.columns + x, load(mixed + r * p.columns + x) * shrink);
    }
  }
  const uint16_t* v = p.v + (kv * p.length + chunk) * p.columns;
  for (int64_t x = 0; x < p.columns; x += 32) {
    const bool two = x + 16 < p.columns;
    float* at = mixed + x;
    _tile_loadd(0, at, 4 * p.columns);
    _tile_loadd(2, at + 16 * p.columns, 4 * p.columns);
    if (two) {
      _tile_loadd(1, at + 16, 4 * p.columns);
      _tile_loadd(3, at + 16 * p.columns + 16, 4 * p.columns);
    }
    for (int64_t j = 0; j < keys; j += 32) {
      _tile_loadd(4, weights + j, 2 * kChunkKeys);
      _tile_loadd(5, weights + 16 * kChunkKeys + j, 2 * kChunkKeys);
      _tile_loadd(6, v + j * p.columns + 2 * x, 4 * p.columns);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(2, 5, 6);
      if (two) {
        _tile_loadd(7, v + j * p.columns + 2 * x + 32, 4 * p.columns);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, at, 4 * p.columns);
    _tile_stored(2, at + 16 * p.columns, 4 * p.columns);
    if (two) {
      _tile_stored(1, at + 16, 4 * p.columns);
      _tile_stored(3, at + 16 * p.columns + 16, 4 * p.columns);
    }
  }
}

static void tiled_run(const AttentionArguments& a, int64_t head, int64_t heads, int64_t first) {
  const Tiled p(a);
  const int64_t kv = head / (a.heads / a.kv_heads);
  float* scores = (float*)a.scratch;                                       // [32][chunk]
  uint16_t* weights = (uint16_t*)(scores + kTileQueries * kChunkKeys);     // [32][chunk]
  float* mixed = (float*)(weights + kTileQueries * kChunkKeys);            // [heads][32][columns]
  memset(mixed, 0, sizeof(float) * heads * kTileQueries * p.columns);
  HeadState states[kMostHeadsAtOnce];
  for (int64_t h = 0; h < heads; ++h) {
    states[h].mixed = mixed + h * kTileQueries * p.columns;
    for (int r = 0; r < kTileQueries; ++r) {
      states[h].max[r] = -__builtin_inff();
      states[h].sum[r] = 0;
    }
  }
  set_up_tiles();
  const Sight sight{first, a.window ? (a.window + 1) / 2 - 1 : a.length, a.window ? a.window / 2 : a.length};
  const int64_t last = first + kTileQueries - 1;
  const int64_t begin = first > sight.left ? (first - sight.left) / 32 * 32 : 0;
  const int64_t end = last + sight.right < a.length - 1 ? last + sight.right + 1 : a.length;
  for (int64_t chunk = begin; chunk < end; chunk += kChunkKeys) {
    const int64_t wanted = (end - chunk + 31) / 32 * 32;
    const int64_t keys = wanted < kChunkKeys ? wanted : kChunkKeys;
    for (int64_t h = 0; h < heads; ++h) {
      const uint16_t* q = p.q + ((head + h) * p.length + first) * p.wide;
      tiled_chunk(a, p, sight, kv, q, chunk, keys, scores, weights, states[h]);
    }
  }
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t r = 0; r < kTileQueries && first + r < a.length; ++r) {
      float* out = a.out + ((first + r) * a.heads + head + h) * a.d;
      const float* row = states[h].mixed + r * p.columns;
      const float inverse = 1.0f / states[h].sum[r];
      by_lanes(a.d, [&](int64_t x, int64_t n) { store_lanes(out + x, load(row + x) * inverse, n); });
    }
  }
}

static constexpr Kernels with_bf16(Kernels k) {
  k.to_bf16 = to_bf16_row;
  k.unpack_bf16_int4 = unpack_bf16<4>;
  k.unpack_bf16_int8 = unpack_bf16<8>;
  k.dot_bf16 = dot_bf16<1>;
  k.pair_bf16 = dot_bf16<2>;
  k.attention_tile = kTileQueries;
  k.attention_bytes = tiled_bytes;
  k.attention_scratch = tiled_scratch;
  k.attention_pack = tiled_pack;
  k.attention_run = tiled_run;
  return k;
}

}  // namespace t5g2::amx

namespace t5g2 {
// constexpr: no code of this file may run before the CPU is known.
using namespace amx;
constexpr Kernels kAmxExact =
    T5G2_UNPACKING_KERNELS("amx", unpack_tiles<4>, unpack_tiles<8>, release_tiles, dot_tiles<4>, dot_tiles<8>,
                           pair_vnni<4>, pair_vnni<8>);
constexpr Kernels kAmx = with_bf16(kAmxExact);

bool enable_amx() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl, from Linux's asm/prctl.h
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
}  // namespace t5g2
