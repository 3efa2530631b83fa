// Integer products by vpdpbusd: 16 rows of a block are the 16 lanes. Included by the AVX512-VNNI and AMX sources.

namespace t5g2::T5G2_ISA {

// Adds the products of 64 unsigned weights with four activations, which every lane gets.
T5G2_INLINE __m512i dot4(__m512i sum, __m512i weights, const int8_t* x) {
  int32_t four;
  memcpy(&four, x, 4);
  return _mm512_dpbusd_epi32(sum, weights, _mm512_set1_epi32(four));
}

T5G2_INLINE __m512i load64(const uint8_t* p) { return _mm512_loadu_si512(p); }

// How far ahead of the weights that are read, in bytes: blocks follow each other, so this is mostly the next ones. The
// hardware's own prefetching stops at pages of 4 KB; with this, decoding was 1.2 times as fast (270M, int4, one thread).
constexpr int64_t kPrefetch = 2048;

// Eight columns of a block's 16 rows, as bytes without sign: the first four columns' and the other four's.
struct Eight {
  __m512i first, second;
};

template <int Bits>
T5G2_INLINE Eight read_ahead(const uint8_t* w) {
  for (int line = 0; line < 16 * Bits; line += 64) _mm_prefetch(w + kPrefetch + line, _MM_HINT_T0);
  if (Bits == 4) {
    const __m512i both = load64(w), low = _mm512_set1_epi8(15);
    return {_mm512_and_si512(both, low), _mm512_and_si512(_mm512_srli_epi16(both, 4), low)};
  }
  const __m512i flip = _mm512_set1_epi8(-128);
  return {_mm512_xor_si512(load64(w), flip), _mm512_xor_si512(load64(w + 64), flip)};
}

// The total with a group's two sums added, which `scales` make numbers of.
T5G2_INLINE __m512 add_scaled(__m512 total, __m512i even, __m512i odd, const uint16_t* scales) {
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(even, odd)), (__m512)load_bf16(scales), total);
}

// R rows straight from the packed weights, for so few rows that reading the weights is the work.
template <int Bits, int R>
T5G2_INLINE void dot_few(const DotArguments& a, int64_t r0) {
  const int8_t* x = (const int8_t*)a.x + r0 * a.stride;
  const uint8_t* w = a.weights;
  __m512 total[R];
  for (int r = 0; r < R; ++r) total[r] = _mm512_setzero_ps();
  for (int64_t g = 0; g < a.groups; ++g) {
    __m512i even[R], odd[R];
    for (int r = 0; r < R; ++r) {
      even[r] = _mm512_set1_epi32(a.starts[(r0 + r) * a.groups + g]);
      odd[r] = _mm512_setzero_si512();
    }
    for (int64_t k = g * a.group; k < (g + 1) * a.group; k += 8, w += 16 * Bits) {
      const Eight weights = read_ahead<Bits>(w);
      for (int r = 0; r < R; ++r) {
        even[r] = dot4(even[r], weights.first, x + r * a.stride + k);
        odd[r] = dot4(odd[r], weights.second, x + r * a.stride + k + 4);
      }
    }
    for (int r = 0; r < R; ++r) total[r] = add_scaled(total[r], even[r], odd[r], a.scales + 16 * g);
  }
  for (int r = 0; r < R; ++r) _mm512_storeu_ps(a.out + 16 * (r0 + r), total[r]);
}

// One row times two blocks. On a Xeon with AMX a plain loop reads 17.2 GB/s in two streams and 15.7 in one; decoding with this
// was 1.1 times as fast (270M, int4, one and two threads).
template <int Bits>
static void pair_vnni(const DotArguments& a) {
  const int8_t* x = (const int8_t*)a.x;
  const uint8_t* w = a.weights;
  const uint16_t* other_scales = (const uint16_t*)((const uint8_t*)a.scales + a.pair);
  __m512 total[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  for (int64_t g = 0; g < a.groups; ++g) {
    const __m512i start = _mm512_set1_epi32(a.starts[g]);
    __m512i even[2] = {start, start}, odd[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (int64_t k = g * a.group; k < (g + 1) * a.group; k += 8, w += 16 * Bits) {
      for (int i = 0; i < 2; ++i) {
        const Eight weights = read_ahead<Bits>(w + i * a.pair);
        even[i] = dot4(even[i], weights.first, x + k);
        odd[i] = dot4(odd[i], weights.second, x + k + 4);
      }
    }
    total[0] = add_scaled(total[0], even[0], odd[0], a.scales + 16 * g);
    total[1] = add_scaled(total[1], even[1], odd[1], other_scales + 16 * g);
  }
  _mm512_storeu_ps(a.out, total[0]);
  _mm512_storeu_ps(a.out + a.pair_out, total[1]);
}

// Writes a block's weights to scratch as bytes [columns / 4][16][4], plus `Add` in each byte.
template <int Bits, int Add>
T5G2_INLINE void unpack_block(const DotArguments& a) {
  const __m512i low = _mm512_set1_epi8(15), add = _mm512_set1_epi8(Add);
  for (int64_t k = 0; k < a.columns; k += 8) {
    uint8_t* out = a.scratch + 16 * k;
    __m512i first, second;
    if (Bits == 4) {
      const __m512i both = load64(a.weights + 8 * k);
      first = _mm512_and_si512(both, low);
      second = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    } else {
      first = load64(a.weights + 16 * k);
      second = load64(a.weights + 16 * k + 64);
    }
    _mm512_store_si512(out, _mm512_add_epi8(first, add));
    _mm512_store_si512(out + 64, _mm512_add_epi8(second, add));
  }
}

// R rows times the unpacked block in scratch: few enough to have their addresses in registers, with two sums each so that
// enough products are independent.
template <int R>
T5G2_INLINE void dot_many(const DotArguments& a, int64_t r0) {
  const int8_t* x[R];
  for (int r = 0; r < R; ++r) x[r] = (const int8_t*)a.x + (r0 + r) * a.stride;
  const int32_t* starts = a.starts + r0 * a.groups;
  __m512 total[R];
  for (int r = 0; r < R; ++r) total[r] = _mm512_setzero_ps();
  const uint8_t* w = a.scratch;
  int64_t k = 0;
  for (int64_t g = 0; g < a.groups; ++g) {
    __m512i even[R], odd[R];
    for (int r = 0; r < R; ++r) {
      even[r] = _mm512_set1_epi32(starts[r * a.groups + g]);
      odd[r] = _mm512_setzero_si512();
    }
    for (const int64_t end = k + a.group; k < end; k += 8, w += 128) {
      const __m512i first = _mm512_load_si512(w), second = _mm512_load_si512(w + 64);
      for (int r = 0; r < R; ++r) even[r] = dot4(even[r], first, x[r] + k);
      for (int r = 0; r < R; ++r) odd[r] = dot4(odd[r], second, x[r] + k + 4);
    }
    for (int r = 0; r < R; ++r) total[r] = add_scaled(total[r], even[r], odd[r], a.scales + 16 * g);
  }
  for (int r = 0; r < R; ++r) _mm512_storeu_ps(a.out + 16 * (r0 + r), total[r]);
}

template <int Bits>
static void unpack_vnni(const DotArguments& a) {
  unpack_block<Bits, Bits == 4 ? 0 : -128>(a);
}

template <int Bits>
static void dot_vnni(const DotArguments& a) {
  if (!a.unpacked) {
    switch (a.rows) {
      case 1: return dot_few<Bits, 1>(a, 0);
      case 2: return dot_few<Bits, 2>(a, 0);
      case 3: return dot_few<Bits, 3>(a, 0);
      case 4: return dot_few<Bits, 4>(a, 0);
    }
    unpack_vnni<Bits>(a);
  }
  int64_t r = 0;
  for (; r + 8 <= a.rows; r += 8) dot_many<8>(a, r);
  for (; r + 2 <= a.rows; r += 2) dot_many<2>(a, r);
  for (; r < a.rows; ++r) dot_many<1>(a, r);
}

}  // namespace t5g2::T5G2_ISA
