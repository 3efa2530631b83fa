// x86-64 with AVX2, FMA and F16C.

#define T5G2_ISA avx2
namespace t5g2::avx2 {
constexpr int kAttentionRows = 4;
}
#include "float_kernels.h"
#include "tables.h"

namespace t5g2::avx2 {

// The products are summed in 16 bits: at most 15 * 127 * 2 each, so that 8 of them fit.
constexpr int64_t kShortColumns = 32;

// Eight rows of a block, from byte 32 * half of every 64.
template <int R>
T5G2_INLINE void dot_int4_rows(const DotArguments& a, int64_t r0, int half) {
  const int8_t* x = (const int8_t*)a.x + r0 * a.stride;
  const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  __m256 total[R];
  for (int r = 0; r < R; ++r) total[r] = _mm256_setzero_ps();
  for (int64_t g = 0; g < a.groups; ++g) {
    __m256i sum[R];  // weights are stored as value + 8
    for (int r = 0; r < R; ++r) sum[r] = _mm256_set1_epi32(a.starts[(r0 + r) * a.groups + g]);
    const int64_t end = (g + 1) * a.group;
    for (int64_t begin = g * a.group; begin < end; begin += kShortColumns) {
      const int64_t stop = begin + kShortColumns < end ? begin + kShortColumns : end;
      __m256i shorts[R];
      for (int r = 0; r < R; ++r) shorts[r] = _mm256_setzero_si256();
      for (int64_t k = begin; k < stop; k += 8) {
        const __m256i both = _mm256_loadu_si256((const __m256i*)(a.weights + 8 * k + 32 * half));
        const __m256i first = _mm256_and_si256(both, low);
        const __m256i second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
        for (int r = 0; r < R; ++r) {
          int32_t four[2];
          memcpy(four, x + r * a.stride + k, 8);
          shorts[r] = _mm256_add_epi16(shorts[r], _mm256_maddubs_epi16(first, _mm256_set1_epi32(four[0])));
          shorts[r] = _mm256_add_epi16(shorts[r], _mm256_maddubs_epi16(second, _mm256_set1_epi32(four[1])));
        }
      }
      for (int r = 0; r < R; ++r) sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(shorts[r], ones));
    }
    const f32x16 scales = load_bf16(a.scales + 16 * g);
    const __m256 scale = _mm256_loadu_ps((const float*)&scales + 8 * half);
    for (int r = 0; r < R; ++r) total[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r]), scale, total[r]);
  }
  for (int r = 0; r < R; ++r) _mm256_storeu_ps(a.out + 16 * (r0 + r) + 8 * half, total[r]);
}

template <int R>
T5G2_INLINE void dot_int8_rows(const DotArguments& a, int64_t r0, int half) {
  const int8_t* x = (const int8_t*)a.x + r0 * a.stride;
  const __m256i ones = _mm256_set1_epi16(1);
  __m256 total[R];
  for (int r = 0; r < R; ++r) total[r] = _mm256_setzero_ps();
  for (int64_t g = 0; g < a.groups; ++g) {
    __m256i sum[R];
    for (int r = 0; r < R; ++r) sum[r] = _mm256_setzero_si256();
    for (int64_t k = g * a.group; k < (g + 1) * a.group; k += 4) {
      const __m256i w = _mm256_loadu_si256((const __m256i*)(a.weights + 16 * k + 32 * half));
      const __m256i magnitude = _mm256_abs_epi8(w);  // one operand must be unsigned: |w| * (x with w's sign)
      for (int r = 0; r < R; ++r) {
        int32_t four;
        memcpy(&four, x + r * a.stride + k, 4);
        const __m256i products = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(_mm256_set1_epi32(four), w));
        sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(products, ones));
      }
    }
    const f32x16 scales = load_bf16(a.scales + 16 * g);
    const __m256 scale = _mm256_loadu_ps((const float*)&scales + 8 * half);
    for (int r = 0; r < R; ++r) total[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r]), scale, total[r]);
  }
  for (int r = 0; r < R; ++r) _mm256_storeu_ps(a.out + 16 * (r0 + r) + 8 * half, total[r]);
}

static void dot_int4(const DotArguments& a) {
  for (int half = 0; half < 2; ++half) {
    int64_t r = 0;
    for (; r + 4 <= a.rows; r += 4) dot_int4_rows<4>(a, r, half);
    for (; r < a.rows; ++r) dot_int4_rows<1>(a, r, half);
  }
}

static void dot_int8(const DotArguments& a) {
  for (int half = 0; half < 2; ++half) {
    int64_t r = 0;
    for (; r + 4 <= a.rows; r += 4) dot_int8_rows<4>(a, r, half);
    for (; r < a.rows; ++r) dot_int8_rows<1>(a, r, half);
  }
}

}  // namespace t5g2::avx2

namespace t5g2 {
using namespace avx2;
constexpr Kernels kAvx2 = T5G2_KERNELS("avx2", dot_int4, dot_int8);
}  // namespace t5g2
