// Integer products of the ARM sources: 16 bytes of a block are 4 rows of 4 columns. Included like simd.h.

namespace t5g2::T5G2_ISA {

// Four rows' scales: bfloat16 is the upper half of a float.
T5G2_INLINE float32x4_t load_scales(const uint16_t* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }

T5G2_INLINE float32x4_t add_group(float32x4_t total, int32x4_t sum, float32x4_t scale) {
  return vfmaq_f32(total, vcvtq_f32_s32(sum), scale);
}

T5G2_INLINE int8x16_t low_values(uint8x16_t both) { return vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(15))); }
T5G2_INLINE int8x16_t high_values(uint8x16_t both) { return vreinterpretq_s8_u8(vshrq_n_u8(both, 4)); }

#if defined(__ARM_FEATURE_DOTPROD)

// R rows straight from packed int4 weights, for so few rows that reading the weights is the work.
template <int R>
T5G2_INLINE void dot_nibbles(const DotArguments& a, int64_t r0) {
  const int8_t* x = (const int8_t*)a.x + r0 * a.stride;
  const uint8_t* w = a.weights;
  float32x4_t total[R][4];
  for (int r = 0; r < R; ++r) {
    for (int i = 0; i < 4; ++i) total[r][i] = vdupq_n_f32(0);
  }
  for (int64_t g = 0; g < a.groups; ++g) {
    int32x4_t sum[R][4];
    for (int r = 0; r < R; ++r) {
      for (int i = 0; i < 4; ++i) sum[r][i] = vdupq_n_s32(a.starts[(r0 + r) * a.groups + g]);
    }
    for (int64_t k = g * a.group; k < (g + 1) * a.group; k += 8, w += 64) {
      int8x8_t eight[R];
      for (int r = 0; r < R; ++r) eight[r] = vld1_s8(x + r * a.stride + k);
      for (int i = 0; i < 4; ++i) {
        const uint8x16_t both = vld1q_u8(w + 16 * i);
        const int8x16_t first = low_values(both), second = high_values(both);
        for (int r = 0; r < R; ++r) sum[r][i] = vdotq_lane_s32(sum[r][i], first, eight[r], 0);
        for (int r = 0; r < R; ++r) sum[r][i] = vdotq_lane_s32(sum[r][i], second, eight[r], 1);
      }
    }
    for (int i = 0; i < 4; ++i) {
      const float32x4_t scale = load_scales(a.scales + 16 * g + 4 * i);
      for (int r = 0; r < R; ++r) total[r][i] = add_group(total[r][i], sum[r][i], scale);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int i = 0; i < 4; ++i) vst1q_f32(a.out + 16 * (r0 + r) + 4 * i, total[r][i]);
  }
}

// R rows times N quarters of a block of bytes [columns / 4][16][4], from row 4 * q0 of the block on.
template <int R, int N>
T5G2_INLINE void dot_bytes(const DotArguments& a, const int8_t* weights, int64_t r0, int q0) {
  const int8_t* x = (const int8_t*)a.x + r0 * a.stride;
  const int8_t* w = weights + 16 * q0;
  float32x4_t total[R][N];
  for (int r = 0; r < R; ++r) {
    for (int i = 0; i < N; ++i) total[r][i] = vdupq_n_f32(0);
  }
  for (int64_t g = 0; g < a.groups; ++g) {
    int32x4_t sum[R][N];
    for (int r = 0; r < R; ++r) {
      for (int i = 0; i < N; ++i) sum[r][i] = vdupq_n_s32(0);
    }
    for (int64_t k = g * a.group; k < (g + 1) * a.group; k += 8, w += 128) {
      int8x8_t eight[R];
      for (int r = 0; r < R; ++r) eight[r] = vld1_s8(x + r * a.stride + k);
      for (int i = 0; i < N; ++i) {
        const int8x16_t first = vld1q_s8(w + 16 * i), second = vld1q_s8(w + 64 + 16 * i);
        for (int r = 0; r < R; ++r) sum[r][i] = vdotq_lane_s32(sum[r][i], first, eight[r], 0);
        for (int r = 0; r < R; ++r) sum[r][i] = vdotq_lane_s32(sum[r][i], second, eight[r], 1);
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

constexpr int64_t kFewRows = 4;

template <int Bits, int R>
T5G2_INLINE void dot_few_rows(const DotArguments& a) {
  if (Bits == 4) {
    dot_nibbles<R>(a, 0);
  } else {
    dot_bytes<R, 4>(a, (const int8_t*)a.weights, 0, 0);
  }
}

// For at most kFewRows rows.
template <int Bits>
static void dot_few(const DotArguments& a) {
  switch (a.rows) {
    case 1: return dot_few_rows<Bits, 1>(a);
    case 2: return dot_few_rows<Bits, 2>(a);
    case 3: return dot_few_rows<Bits, 3>(a);
    case 4: return dot_few_rows<Bits, 4>(a);
  }
}

#endif

}  // namespace t5g2::T5G2_ISA
