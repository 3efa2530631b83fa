// Sixteen floats at a time, in the compiler's own vector types: one source that becomes AVX-512, AVX2, SSE2 or NEON.
//
// Included by one source file per instruction set, inside its namespace T5G2_ISA, so that no inline function that was
// compiled for one can be linked into another. For the same reason nothing here uses the standard library's templates.

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace t5g2::T5G2_ISA {

#define T5G2_INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__) || defined(__clang__)

typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));
typedef int8_t i8x16 __attribute__((vector_size(16)));

T5G2_INLINE f32x16 load(const float* p) {
  f32x16 v;
  memcpy(&v, p, sizeof v);
  return v;
}

T5G2_INLINE void store(float* p, f32x16 v) { memcpy(p, &v, sizeof v); }

T5G2_INLINE f32x16 maximum(f32x16 a, f32x16 b) { return a > b ? a : b; }
T5G2_INLINE f32x16 minimum(f32x16 a, f32x16 b) { return a < b ? a : b; }
T5G2_INLINE f32x16 zero_below(f32x16 x, f32x16 low, f32x16 y) { return x < low ? f32x16{} : y; }

T5G2_INLINE f32x16 as_float(i32x16 x) { return (f32x16)x; }
T5G2_INLINE i32x16 as_bits(f32x16 x) { return (i32x16)x; }
T5G2_INLINE f32x16 to_float(i32x16 x) { return __builtin_convertvector(x, f32x16); }
T5G2_INLINE i8x16 low_bytes(i32x16 x) { return __builtin_convertvector(x, i8x16); }

// Sixteen bfloat16.
T5G2_INLINE f32x16 load_bf16(const uint16_t* p) {
  u16x16 v;
  memcpy(&v, p, sizeof v);
  return as_float((i32x16)(__builtin_convertvector(v, u32x16) << 16));
}

#else  // GCC keeps a vector that is wider than a register in memory, so that it gets registers

#if defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
constexpr int kParts = 16 / kLanes;
typedef float f32part __attribute__((vector_size(4 * kLanes)));
typedef int32_t i32part __attribute__((vector_size(4 * kLanes)));
typedef uint32_t u32part __attribute__((vector_size(4 * kLanes)));
typedef uint16_t u16part __attribute__((vector_size(2 * kLanes)));
typedef int8_t i8part __attribute__((vector_size(kLanes)));

struct f32x16 {
  f32part part[kParts];
  float operator[](int i) const { return part[i / kLanes][i % kLanes]; }
};
struct i32x16 {
  i32part part[kParts];
  int32_t operator[](int i) const { return part[i / kLanes][i % kLanes]; }
};
struct i8x16 {
  i8part part[kParts];
};

T5G2_INLINE f32x16 load(const float* p) {
  f32x16 v;
  for (int i = 0; i < kParts; ++i) memcpy(&v.part[i], p + i * kLanes, sizeof(f32part));
  return v;
}

T5G2_INLINE void store(float* p, f32x16 v) {
  for (int i = 0; i < kParts; ++i) memcpy(p + i * kLanes, &v.part[i], sizeof(f32part));
}

#define T5G2_EACH_PART(result, expression)                  \
  {                                                         \
    result r;                                               \
    for (int i = 0; i < kParts; ++i) r.part[i] = expression; \
    return r;                                               \
  }

T5G2_INLINE f32x16 operator+(f32x16 a, f32x16 b) T5G2_EACH_PART(f32x16, a.part[i] + b.part[i])
T5G2_INLINE f32x16 operator-(f32x16 a, f32x16 b) T5G2_EACH_PART(f32x16, a.part[i] - b.part[i])
T5G2_INLINE f32x16 operator*(f32x16 a, f32x16 b) T5G2_EACH_PART(f32x16, a.part[i] * b.part[i])
T5G2_INLINE f32x16 operator/(f32x16 a, f32x16 b) T5G2_EACH_PART(f32x16, a.part[i] / b.part[i])
T5G2_INLINE f32x16 operator+(f32x16 a, float b) T5G2_EACH_PART(f32x16, a.part[i] + b)
T5G2_INLINE f32x16 operator-(f32x16 a, float b) T5G2_EACH_PART(f32x16, a.part[i] - b)
T5G2_INLINE f32x16 operator*(f32x16 a, float b) T5G2_EACH_PART(f32x16, a.part[i] * b)
T5G2_INLINE f32x16 operator+(float a, f32x16 b) { return b + a; }
T5G2_INLINE f32x16 operator*(float a, f32x16 b) { return b * a; }
T5G2_INLINE f32x16 operator-(f32x16 a) T5G2_EACH_PART(f32x16, -a.part[i])
T5G2_INLINE f32x16& operator+=(f32x16& a, f32x16 b) { return a = a + b; }
T5G2_INLINE f32x16& operator*=(f32x16& a, f32x16 b) { return a = a * b; }
T5G2_INLINE i32x16 operator+(i32x16 a, i32x16 b) T5G2_EACH_PART(i32x16, a.part[i] + b.part[i])
T5G2_INLINE i32x16 operator-(i32x16 a, i32x16 b) T5G2_EACH_PART(i32x16, a.part[i] - b.part[i])
T5G2_INLINE i32x16 operator+(i32x16 a, int32_t b) T5G2_EACH_PART(i32x16, a.part[i] + b)
T5G2_INLINE i32x16 operator<<(i32x16 a, int b) T5G2_EACH_PART(i32x16, a.part[i] << b)
T5G2_INLINE i32x16& operator+=(i32x16& a, i32x16 b) { return a = a + b; }

T5G2_INLINE f32x16 maximum(f32x16 a, f32x16 b)
    T5G2_EACH_PART(f32x16, a.part[i] > b.part[i] ? a.part[i] : b.part[i])
T5G2_INLINE f32x16 minimum(f32x16 a, f32x16 b)
    T5G2_EACH_PART(f32x16, a.part[i] < b.part[i] ? a.part[i] : b.part[i])
T5G2_INLINE f32x16 zero_below(f32x16 x, f32x16 low, f32x16 y)
    T5G2_EACH_PART(f32x16, x.part[i] < low.part[i] ? f32part{} : y.part[i])

T5G2_INLINE f32x16 as_float(i32x16 x) T5G2_EACH_PART(f32x16, (f32part)x.part[i])
T5G2_INLINE i32x16 as_bits(f32x16 x) T5G2_EACH_PART(i32x16, (i32part)x.part[i])
T5G2_INLINE f32x16 to_float(i32x16 x) T5G2_EACH_PART(f32x16, __builtin_convertvector(x.part[i], f32part))
T5G2_INLINE i8x16 low_bytes(i32x16 x) T5G2_EACH_PART(i8x16, __builtin_convertvector(x.part[i], i8part))

// Sixteen bfloat16.
T5G2_INLINE f32x16 load_bf16(const uint16_t* p) {
  f32x16 r;
  for (int i = 0; i < kParts; ++i) {
    u16part v;
    memcpy(&v, p + i * kLanes, sizeof v);
    r.part[i] = (f32part)(__builtin_convertvector(v, u32part) << 16);
  }
  return r;
}

#endif

T5G2_INLINE f32x16 splat(float x) { return f32x16{} + x; }

// The first n < 16 lanes; the others are zero and nothing beyond is read.
T5G2_INLINE f32x16 load_part(const float* p, int64_t n) {
  float lanes[16] = {};
  memcpy(lanes, p, n * sizeof(float));
  return load(lanes);
}

T5G2_INLINE void store_part(float* p, f32x16 v, int64_t n) {
  float lanes[16];
  store(lanes, v);
  memcpy(p, lanes, n * sizeof(float));
}

// v with zeros from lane n on.
T5G2_INLINE f32x16 first_lanes(f32x16 v, int64_t n) {
  float lanes[16];
  store(lanes, v);
  return load_part(lanes, n);
}

// a * b + c with one rounding.
T5G2_INLINE f32x16 fused(f32x16 a, f32x16 b, f32x16 c) {
#if defined(__AVX512F__)
  return (f32x16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
  float x[16], y[16], z[16];
  store(x, a);
  store(y, b);
  store(z, c);
  for (int i = 0; i < 16; ++i) z[i] = __builtin_fmaf(x[i], y[i], z[i]);
  return load(z);
#endif
}

// a * b, rounded: the compiler must not fuse it with a sum that follows.
T5G2_INLINE f32x16 rounded_product(f32x16 a, float b) {
  f32x16 product = a * b;
#if defined(__clang__)  // fuses within an expression only
#elif defined(__AVX512F__)
  asm("" : "+v"(product));
#elif defined(__aarch64__)
  for (f32part& part : product.part) asm("" : "+w"(part));
#else
  for (f32part& part : product.part) asm("" : "+x"(part));
#endif
  return product;
}

T5G2_INLINE float lane_sum(f32x16 v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
  float lanes[16];
  store(lanes, v);
  for (int step = 8; step >= 1; step /= 2) {
    for (int i = 0; i < step; ++i) lanes[i] += lanes[i + step];
  }
  return lanes[0];
#endif
}

T5G2_INLINE int32_t lane_sum(i32x16 v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_epi32((__m512i)v);
#else
  int32_t sum = 0;
  for (int i = 0; i < 16; ++i) sum += v[i];
  return sum;
#endif
}

T5G2_INLINE float lane_max(f32x16 v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#else
  float lanes[16];
  store(lanes, v);
  for (int step = 8; step >= 1; step /= 2) {
    for (int i = 0; i < step; ++i) lanes[i] = lanes[i] > lanes[i + step] ? lanes[i] : lanes[i + step];
  }
  return lanes[0];
#endif
}

T5G2_INLINE float half_to_float(uint16_t h) {
  uint32_t sign = uint32_t(h & 0x8000) << 16, magnitude = h & 0x7fff;
  float f;
  if (magnitude < 0x0400) {  // zero and subnormals: multiples of 2^-24
    f = float(magnitude) * 5.9604644775390625e-8f;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    bits |= sign;
    memcpy(&f, &bits, 4);
    return f;
  }
  uint32_t bits = sign | (magnitude >= 0x7c00 ? 0x7f800000u | (magnitude & 0x3ff) << 13 : (magnitude << 13) + 0x38000000u);
  memcpy(&f, &bits, 4);
  return f;
}

// Rounds to nearest even; saturates at +-65504.
T5G2_INLINE uint16_t float_to_half(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return sign | 0x7e00;  // not a number stays one
  if (bits >= 0x477ff000) return sign | 0x7bff;
  if (bits < 0x38800000) {  // subnormal: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits
    float magnitude;
    memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    memcpy(&bits, &magnitude, 4);
    return uint16_t(sign | (bits - 0x3f000000));
  }
  bits += 0xfff + (bits >> 13 & 1);
  return uint16_t(sign | (bits - 0x38000000) >> 13);
}

T5G2_INLINE f32x16 load_half(const uint16_t* p) {
#if defined(__AVX512F__)
  return (f32x16)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
#elif defined(__aarch64__) && !defined(__clang__)
  // Not vcvt_f32_f16: GCC takes it for a reader of memory, and keeps every sum around it on the stack.
  f32x16 r;
  for (int i = 0; i < kParts; ++i) {
    u16part v;
    memcpy(&v, p + i * kLanes, sizeof v);
    asm("fcvtl %0.4s, %1.4h" : "=w"(r.part[i]) : "w"(v));
  }
  return r;
#else
  float lanes[16];
#if defined(__F16C__)
  for (int i = 0; i < 16; i += 8) _mm256_storeu_ps(lanes + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + i))));
#elif defined(__aarch64__)
  for (int i = 0; i < 16; i += 4) vst1q_f32(lanes + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + i))));
#else
  for (int i = 0; i < 16; ++i) lanes[i] = half_to_float(p[i]);
#endif
  return load(lanes);
#endif
}

// exp to about 1e-7 relative; 0 below -87, and no overflow above 88.
T5G2_INLINE f32x16 exponential(f32x16 x) {
  const f32x16 low = splat(-87.0f);
  const f32x16 clamped = minimum(maximum(x, low), splat(88.0f));
  const f32x16 magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const f32x16 shifted = clamped * 1.44269504f + magic;
  const f32x16 n = shifted - magic;
  f32x16 r = clamped - n * 0.693359375f;  // ln 2 in two parts
  r = r - n * -2.12194440e-4f;
  // Taylor with the last terms fitted on |r| <= ln 2 / 2 (Cephes' expf).
  f32x16 p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const i32x16 exponent = (as_bits(shifted) - as_bits(magic) + 127) << 23;
  const f32x16 y = p * as_float(exponent);
  return zero_below(x, low, y);
}

// x / y, for y from 2^-126 to 2^127. On AVX-512 by a reciprocal of 14 bits and a step of Newton's: within 2 units in the last
// place, in a third of the time.
T5G2_INLINE f32x16 quotient(f32x16 x, f32x16 y) {
#if defined(__AVX512F__)
  const f32x16 r = (f32x16)_mm512_rcp14_ps((__m512)y);
  return x * (r * (2.0f - y * r));
#else
  return x / y;
#endif
}

#if defined(__AVX512F__)
// 2^x to about 2e-7 relative, for x between -126 and 126, which is where others are moved to.
T5G2_INLINE f32x16 power_of_two(f32x16 x) {
  x = minimum(maximum(x, splat(-126.0f)), splat(126.0f));
  const __m512 n = _mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const f32x16 f = x - (f32x16)n;
  f32x16 p = splat(1.3276473e-3f);  // the least relative error on |f| <= 1/2
  p = p * f + 9.6755419e-3f;
  p = p * f + 5.5507131e-2f;
  p = p * f + 2.4022120e-1f;
  p = p * f + 6.9314694e-1f;
  p = p * f + 1.0f;
  return (f32x16)_mm512_scalef_ps((__m512)p, n);
}
#endif

// GELU, tanh approximation: x * sigmoid(2u), u = sqrt(2 / pi) * (x + 0.044715 x^3).
T5G2_INLINE f32x16 gelu(f32x16 x) {
#if defined(__AVX512F__)  // exp(-2u) as a power of two, in fewer steps
  return quotient(x, 1.0f + power_of_two(x * (-2.3022082f - 0.10294324f * x * x)));
#else
  const f32x16 u2 = 1.5957691216f * (x + 0.044715f * x * x * x);
  return quotient(x, 1.0f + exponential(-u2));
#endif
}

}  // namespace t5g2::T5G2_ISA
