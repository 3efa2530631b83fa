// Plain C++ for any CPU: the baseline of x86-64, and what a test compares the others with.

#define T5G2_ISA portable
namespace t5g2::portable {
constexpr int kAttentionRows = 4;
}
#include "float_kernels.h"
#include "tables.h"

namespace t5g2::portable {

// The value of weight k of row n.
template <int Bits>
T5G2_INLINE int value(const uint8_t* w, int64_t k, int n) {
  if (Bits == 8) return (int8_t)w[(k / 4 * 16 + n) * 4 + k % 4];
  const uint8_t both = w[(k / 8 * 16 + n) * 4 + k % 4];
  return (k % 8 < 4 ? both & 15 : both >> 4) - 8;
}

template <int Bits>
static void dot(const DotArguments& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const int8_t* x = (const int8_t*)a.x + r * a.stride;
    f32x16 total = {};
    for (int64_t g = 0; g < a.groups; ++g) {
      int32_t sum[16] = {};
      for (int64_t k = g * a.group; k < (g + 1) * a.group; ++k) {
        for (int n = 0; n < 16; ++n) sum[n] += x[k] * value<Bits>(a.weights, k, n);
      }
      i32x16 sums;
      memcpy(&sums, sum, sizeof sums);
      total = fused(to_float(sums), load_bf16(a.scales + 16 * g), total);
    }
    store(a.out + 16 * r, total);
  }
}

}  // namespace t5g2::portable

namespace t5g2 {
using namespace portable;
constexpr Kernels kPortable = T5G2_KERNELS("portable", dot<4>, dot<8>);
}  // namespace t5g2
