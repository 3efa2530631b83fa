// 64-bit ARM with 8-bit matrix products (smmla) beside dot products, such as Cortex-A510, X2 and Neoverse V1.

#define T5G2_ISA neon_i8mm
namespace t5g2::neon_i8mm {
constexpr int kAttentionRows = 4;
}
#include "float_kernels.h"
#include "neon.h"
#include "tables.h"

namespace t5g2::neon_i8mm {

// A product of two rows of activations and two of weights, eight columns each, is a 2 x 2 matrix in one register.

// Writes a block to scratch as signed bytes [columns rounded up to 16 / 8][8 pairs of rows][2][8].
template <int Bits>
static void unpack(const DotArguments& a) {
  const int8x16_t eight = vdupq_n_s8(8);
  int8_t* out = (int8_t*)a.scratch;
  for (int64_t k = 0; k < a.columns; k += 8, out += 128) {
    for (int i = 0; i < 4; ++i) {
      int8x16_t first, second;  // four rows each; columns k .. k + 3, k + 4 .. k + 7
      if (Bits == 4) {
        const uint8x16_t both = vld1q_u8(a.weights + 8 * k + 16 * i);
        first = vsubq_s8(low_values(both), eight);
        second = vsubq_s8(high_values(both), eight);
      } else {
        first = vld1q_s8((const int8_t*)a.weights + 16 * k + 16 * i);
        second = vld1q_s8((const int8_t*)a.weights + 16 * k + 64 + 16 * i);
      }
      const int32x4_t early = vreinterpretq_s32_s8(first), late = vreinterpretq_s32_s8(second);
      vst1q_s8(out + 32 * i, vreinterpretq_s8_s32(vzip1q_s32(early, late)));
      vst1q_s8(out + 32 * i + 16, vreinterpretq_s8_s32(vzip2q_s32(early, late)));
    }
  }
  if (a.columns % 16) memset(out, 0, 128);
}

T5G2_INLINE int8x16_t lower_halves(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

T5G2_INLINE int8x16_t upper_halves(int8x16_t a, int8x16_t b) {
  return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

// P pairs of rows times eight rows of the unpacked block, from row 8 * half on. Sums stay 2 x 2 until they are stored.
template <int P>
T5G2_INLINE void dot_pairs(const DotArguments& a, int64_t r0, int half) {
  const int8_t* x = (const int8_t*)a.x + r0 * a.stride;
  const int8_t* w = (const int8_t*)a.scratch + 64 * half;
  float32x4_t total[P][4];
  for (int p = 0; p < P; ++p) {
    for (int i = 0; i < 4; ++i) total[p][i] = vdupq_n_f32(0);
  }
  for (int64_t g = 0; g < a.groups; ++g) {
    int32x4_t sum[P][4];
    for (int p = 0; p < P; ++p) {
      for (int i = 0; i < 4; ++i) sum[p][i] = vdupq_n_s32(0);
    }
    for (int64_t k = g * a.group; k < (g + 1) * a.group; k += 16, w += 256) {
      int8x16_t early[P], late[P];
      for (int p = 0; p < P; ++p) {
        const int8x16_t even = vld1q_s8(x + 2 * p * a.stride + k), odd = vld1q_s8(x + (2 * p + 1) * a.stride + k);
        early[p] = lower_halves(even, odd);
        late[p] = upper_halves(even, odd);
      }
      for (int i = 0; i < 4; ++i) {
        const int8x16_t first = vld1q_s8(w + 16 * i);
        for (int p = 0; p < P; ++p) sum[p][i] = vmmlaq_s32(sum[p][i], early[p], first);
      }
      for (int i = 0; i < 4; ++i) {
        const int8x16_t second = vld1q_s8(w + 128 + 16 * i);
        for (int p = 0; p < P; ++p) sum[p][i] = vmmlaq_s32(sum[p][i], late[p], second);
      }
    }
    for (int j = 0; j < 2; ++j) {
      const float32x4_t four = load_scales(a.scales + 16 * g + 8 * half + 4 * j);
      const float64x2_t pairs = vreinterpretq_f64_f32(four);
      const float32x4_t first = vreinterpretq_f32_f64(vdupq_laneq_f64(pairs, 0));
      const float32x4_t second = vreinterpretq_f32_f64(vdupq_laneq_f64(pairs, 1));
      for (int p = 0; p < P; ++p) {
        total[p][2 * j] = add_group(total[p][2 * j], sum[p][2 * j], first);
        total[p][2 * j + 1] = add_group(total[p][2 * j + 1], sum[p][2 * j + 1], second);
      }
    }
  }
  for (int p = 0; p < P; ++p) {
    float* out = a.out + 16 * (r0 + 2 * p) + 8 * half;
    for (int j = 0; j < 2; ++j) {
      const float64x2_t first = vreinterpretq_f64_f32(total[p][2 * j]), second = vreinterpretq_f64_f32(total[p][2 * j + 1]);
      vst1q_f32(out + 4 * j, vreinterpretq_f32_f64(vzip1q_f64(first, second)));
      vst1q_f32(out + 16 + 4 * j, vreinterpretq_f32_f64(vzip2q_f64(first, second)));
    }
  }
}

template <int Bits>
static void dot(const DotArguments& a) {
  if (!a.unpacked) {
    if (a.rows <= kFewRows) return dot_few<Bits>(a);
    unpack<Bits>(a);
  }
  int64_t r = 0;  // the last tile may reach into the padding of the rows
  for (; r + 4 < a.rows; r += 8) {
    dot_pairs<4>(a, r, 0);
    dot_pairs<4>(a, r, 1);
  }
  for (; r < a.rows; r += 4) {
    dot_pairs<2>(a, r, 0);
    dot_pairs<2>(a, r, 1);
  }
}

}  // namespace t5g2::neon_i8mm

namespace t5g2 {
using namespace neon_i8mm;
constexpr Kernels kNeonI8mm =
    T5G2_UNPACKING_KERNELS("neon_i8mm", unpack<4>, unpack<8>, nullptr, dot<4>, dot<8>, nullptr, nullptr);
}  // namespace t5g2
