// 64-bit ARM with dot products (sdot), such as Cortex-A55 and A76.

#define T5G2_ISA neon_dotprod
namespace t5g2::neon_dotprod {
constexpr int kAttentionRows = 4;
}
#include "float_kernels.h"
#include "neon.h"
#include "tables.h"

namespace t5g2::neon_dotprod {

// Writes a block's int4 weights to scratch as signed bytes [columns / 4][16][4], which int8 weights are.
static void unpack(const DotArguments& a) {
  const int8x16_t eight = vdupq_n_s8(8);
  int8_t* out = (int8_t*)a.scratch;
  for (int64_t k = 0; k < a.columns; k += 8, out += 128) {
    for (int i = 0; i < 4; ++i) {
      const uint8x16_t both = vld1q_u8(a.weights + 8 * k + 16 * i);
      vst1q_s8(out + 16 * i, vsubq_s8(low_values(both), eight));
      vst1q_s8(out + 64 + 16 * i, vsubq_s8(high_values(both), eight));
    }
  }
}

template <int Bits>
static void dot(const DotArguments& a) {
  if (!a.unpacked && a.rows <= kFewRows) return dot_few<Bits>(a);
  if (!a.unpacked && Bits == 4) unpack(a);
  const int8_t* weights = (const int8_t*)(Bits == 4 ? a.scratch : a.weights);
  int64_t r = 0;
  for (; r + 6 <= a.rows; r += 6) {  // half a block at a time: sums and totals of six rows fill the registers
    dot_bytes<6, 2>(a, weights, r, 0);
    dot_bytes<6, 2>(a, weights, r, 2);
  }
  for (; r + 2 <= a.rows; r += 2) dot_bytes<2, 4>(a, weights, r, 0);
  if (r < a.rows) dot_bytes<1, 4>(a, weights, r, 0);
}

}  // namespace t5g2::neon_dotprod

namespace t5g2 {
using namespace neon_dotprod;
constexpr Kernels kNeonDotprod =
    T5G2_UNPACKING_KERNELS("neon_dotprod", unpack, nullptr, nullptr, dot<4>, dot<8>, nullptr, nullptr);
}  // namespace t5g2
