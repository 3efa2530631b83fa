// Any 64-bit ARM, such as Cortex-A53: no dot products, so bytes are multiplied into 16 bits.

#define T5G2_ISA neon
namespace t5g2::neon {
constexpr int kAttentionRows = 4;
}
#include "float_kernels.h"
#include "neon.h"
#include "tables.h"

namespace t5g2::neon {

// Two rows of a block in each: a row's products with columns 0 .. 3, then the next row's.
struct Shorts {
  int16x8_t first, second;
};

T5G2_INLINE int8x16_t load_four(const int8_t* x) { return vreinterpretq_s8_s32(vld1q_dup_s32((const int32_t*)x)); }

T5G2_INLINE Shorts multiply(int8x16_t w, int8x16_t x) {
  return {vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x)};
}

T5G2_INLINE Shorts multiply_add(Shorts sum, int8x16_t w, int8x16_t x) {
  return {vmlal_s8(sum.first, vget_low_s8(w), vget_low_s8(x)), vmlal_high_s8(sum.second, w, x)};
}

// A row's four sums of products become one.
T5G2_INLINE int32x4_t add_columns(int32x4_t first, int32x4_t second) { return vpaddq_s32(first, second); }

// Products of int4 that a 16-bit sum holds: 16 of at most 15 * 127 each, four columns at a time.
constexpr int64_t kShortColumns = 64;

// R rows times N quarters of a block, from row 4 * q0 of the block on.
template <int R, int N>
T5G2_INLINE void dot_int4_rows(const DotArguments& a, int64_t r0, int q0) {
  const int8_t* x = (const int8_t*)a.x + r0 * a.stride;
  const uint8_t* w = a.weights + 16 * q0;
  float32x4_t total[R][N];
  for (int r = 0; r < R; ++r) {
    for (int i = 0; i < N; ++i) total[r][i] = vdupq_n_f32(0);
  }
  for (int64_t g = 0; g < a.groups; ++g) {
    int32x4_t sum[R][N];
    for (int r = 0; r < R; ++r) {
      for (int i = 0; i < N; ++i) sum[r][i] = vdupq_n_s32(a.starts[(r0 + r) * a.groups + g]);
    }
    const int64_t end = (g + 1) * a.group;
    for (int64_t begin = g * a.group; begin < end; begin += kShortColumns) {
      const int64_t stop = begin + kShortColumns < end ? begin + kShortColumns : end;
      Shorts shorts[R][N];
      for (int r = 0; r < R; ++r) {
        for (int i = 0; i < N; ++i) shorts[r][i] = {vdupq_n_s16(0), vdupq_n_s16(0)};
      }
      for (int64_t k = begin; k < stop; k += 8, w += 64) {
        int8x16_t early[R], late[R];
        for (int r = 0; r < R; ++r) {
          early[r] = load_four(x + r * a.stride + k);
          late[r] = load_four(x + r * a.stride + k + 4);
        }
        for (int i = 0; i < N; ++i) {
          const uint8x16_t both = vld1q_u8(w + 16 * i);
          const int8x16_t low = low_values(both), high = high_values(both);
          for (int r = 0; r < R; ++r) {
            shorts[r][i] = multiply_add(shorts[r][i], low, early[r]);
            shorts[r][i] = multiply_add(shorts[r][i], high, late[r]);
          }
        }
      }
      for (int r = 0; r < R; ++r) {
        for (int i = 0; i < N; ++i) {
          const int32x4_t added = add_columns(vpaddlq_s16(shorts[r][i].first), vpaddlq_s16(shorts[r][i].second));
          sum[r][i] = vaddq_s32(sum[r][i], added);
        }
      }
    }
    for (int i = 0; i < N; ++i) {
      const float32x4_t scale = load_scales(a.scales + 16 * g + 4 * (q0 + i));
      for (int r = 0; r < R; ++r) total[r][i] = add_group(total[r][i], sum[r][i], scale);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int i = 0; i < N; ++i) vst1q_f32(a.out + 16 * (r0 + r) + 4 * (q0 + i), total[r][i]);
  }
}

// The same for int8, of which a 16-bit sum holds two products: 2 * 128 * 127.
template <int R, int N>
T5G2_INLINE void dot_int8_rows(const DotArguments& a, int64_t r0, int q0) {
  const int8_t* x = (const int8_t*)a.x + r0 * a.stride;
  const int8_t* w = (const int8_t*)a.weights + 16 * q0;
  float32x4_t total[R][N];
  for (int r = 0; r < R; ++r) {
    for (int i = 0; i < N; ++i) total[r][i] = vdupq_n_f32(0);
  }
  for (int64_t g = 0; g < a.groups; ++g) {
    int32x4_t first[R][N], second[R][N];
    for (int r = 0; r < R; ++r) {
      for (int i = 0; i < N; ++i) first[r][i] = second[r][i] = vdupq_n_s32(0);
    }
    for (int64_t k = g * a.group; k < (g + 1) * a.group; k += 8, w += 128) {
      int8x16_t early[R], late[R];
      for (int r = 0; r < R; ++r) {
        early[r] = load_four(x + r * a.stride + k);
        late[r] = load_four(x + r * a.stride + k + 4);
      }
      for (int i = 0; i < N; ++i) {
        const int8x16_t low = vld1q_s8(w + 16 * i), high = vld1q_s8(w + 64 + 16 * i);
        for (int r = 0; r < R; ++r) {
          const Shorts products = multiply_add(multiply(low, early[r]), high, late[r]);
          first[r][i] = vpadalq_s16(first[r][i], products.first);
          second[r][i] = vpadalq_s16(second[r][i], products.second);
        }
      }
    }
    for (int i = 0; i < N; ++i) {
      const float32x4_t scale = load_scales(a.scales + 16 * g + 4 * (q0 + i));
      for (int r = 0; r < R; ++r) total[r][i] = add_group(total[r][i], add_columns(first[r][i], second[r][i]), scale);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int i = 0; i < N; ++i) vst1q_f32(a.out + 16 * (r0 + r) + 4 * (q0 + i), total[r][i]);
  }
}

// Four rows take half a block at a time, which is what 32 registers hold.
static void dot_int4(const DotArguments& a) {
  int64_t r = 0;
  for (; r + 4 <= a.rows; r += 4) {
    dot_int4_rows<4, 2>(a, r, 0);
    dot_int4_rows<4, 2>(a, r, 2);
  }
  for (; r < a.rows; ++r) dot_int4_rows<1, 4>(a, r, 0);
}

static void dot_int8(const DotArguments& a) {
  int64_t r = 0;
  for (; r + 4 <= a.rows; r += 4) {
    dot_int8_rows<4, 2>(a, r, 0);
    dot_int8_rows<4, 2>(a, r, 2);
  }
  for (; r < a.rows; ++r) dot_int8_rows<1, 4>(a, r, 0);
}

}  // namespace t5g2::neon

namespace t5g2 {
using namespace neon;
constexpr Kernels kNeon = T5G2_KERNELS("neon", dot_int4, dot_int8);
}  // namespace t5g2
