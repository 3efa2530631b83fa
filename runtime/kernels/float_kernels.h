// The float32 kernels, written once over simd.h. Included like simd.h, with kAttentionRows set to how many rows of scores
// the instruction set's registers hold.

#include "kernels.h"
#include "simd.h"

namespace t5g2::T5G2_ISA {

// Calls body(i, n) for every 16 of `count` elements; n < 16 at the end.
template <class Body>
T5G2_INLINE void by_lanes(int64_t count, Body body) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) body(i, int64_t(16));
  if (i < count) body(i, count - i);
}

T5G2_INLINE f32x16 load_lanes(const float* p, int64_t n) { return n == 16 ? load(p) : load_part(p, n); }
T5G2_INLINE void store_lanes(float* p, f32x16 v, int64_t n) {
  if (n == 16) {
    store(p, v);
  } else {
    store_part(p, v, n);
  }
}

static void quantize_row(const float* x, int64_t columns, int64_t group, int64_t groups, int64_t stride, int8_t* q,
                         int32_t* sums, float* scale) {
  f32x16 largest = {};
  by_lanes(columns, [&](int64_t i, int64_t n) {
    const f32x16 v = load_lanes(x + i, n);
    largest = maximum(largest, maximum(v, -v));
  });
  const float amax = lane_max(largest);
  *scale = amax / 127.0f;
  const float inverse = amax > 127.0f / 3.402823466e38f ? 127.0f / amax : 0.0f;  // it must be finite
  const f32x16 magic = splat(12582912.0f);  // rounds half to even, and leaves the integer in the low bits
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = g * group, end = begin + group < columns ? begin + group : columns;
    i32x16 sum = {};
    by_lanes(end - begin, [&](int64_t i, int64_t n) {
      const f32x16 product = rounded_product(load_lanes(x + begin + i, n), inverse);
      const i32x16 v = as_bits(product + magic) - as_bits(magic);
      const i8x16 bytes = low_bytes(v);
      memcpy(q + begin + i, &bytes, n);
      sum += v;
    });
    sums[g] = lane_sum(sum);
  }
  memset(q + columns, 0, stride - columns);
}

// Float32 weights: [columns][16] of a block.
template <int R>
T5G2_INLINE void dot_float_rows(const DotArguments& a, int64_t r0) {
  const float* w = (const float*)a.weights;
  const float* x = (const float*)a.x + r0 * a.stride;
  f32x16 sum[R];
  for (int i = 0; i < R; ++i) sum[i] = f32x16{};
  for (int64_t k = 0; k < a.columns; ++k) {
    const f32x16 v = load(w + 16 * k);
    for (int r = 0; r < R; ++r) sum[r] += v * x[r * a.stride + k];
  }
  for (int r = 0; r < R; ++r) store(a.out + 16 * (r0 + r), sum[r]);
}

static void dot_float(const DotArguments& a) {
  int64_t r = 0;
  for (; r + kAttentionRows <= a.rows; r += kAttentionRows) dot_float_rows<kAttentionRows>(a, r);
  for (; r < a.rows; ++r) dot_float_rows<1>(a, r);
}

template <bool Gated>
T5G2_INLINE void store_columns(const StoreArguments& a) {
  const int64_t block = a.block_rows * 16;
  for (int64_t r = 0; r < a.rows; ++r) {
    const float scale = a.row_scales ? a.row_scales[r] : 1.0f;
    const float* dot = a.dot + 16 * r;
    by_lanes(a.columns, [&](int64_t column, int64_t n) {
      f32x16 y = rounded_product(load(dot), scale);
      if (Gated) {
        y = gelu(y) * (load(dot + block) * scale);
        dot += 2 * block;
      } else {
        if (a.bias) y = y + load_lanes(a.bias + column, n);
        if (a.gelu) y = gelu(y);
        dot += block;
      }
      store_lanes(a.out + r * a.stride + column, y, n);
    });
  }
}

static void store_rows(const StoreArguments& a) {
  if (a.gated) {
    store_columns<true>(a);
  } else {
    store_columns<false>(a);
  }
}

T5G2_INLINE float inverse_rms(const float* x, float eps, int64_t n) {
  f32x16 squares = {};
  by_lanes(n, [&](int64_t i, int64_t lanes) {
    const f32x16 v = load_lanes(x + i, lanes);
    squares += v * v;
  });
  return 1.0f / __builtin_sqrtf(lane_sum(squares) / float(n) + eps);
}

static void rms_norm_row(const float* x, const float* weight, float eps, int64_t n, float* out) {
  const float inverse = inverse_rms(x, eps, n);
  by_lanes(n, [&](int64_t i, int64_t lanes) {
    store_lanes(out + i, load_lanes(x + i, lanes) * inverse * load_lanes(weight + i, lanes), lanes);
  });
}

static void add_rms_norm_row(const float* residual, const float* x, const float* post_weight, const float* weight,
                             float eps, int64_t n, float* sum, float* out) {
  const float inverse = inverse_rms(x, eps, n);
  by_lanes(n, [&](int64_t i, int64_t lanes) {
    const f32x16 normed = load_lanes(x + i, lanes) * inverse * load_lanes(post_weight + i, lanes);
    store_lanes(sum + i, load_lanes(residual + i, lanes) + normed, lanes);
  });
  rms_norm_row(sum, weight, eps, n, out);
}

static void add_layer_norm_row(const float* residual, const float* x, const float* weight, const float* bias, float eps,
                               int64_t n, float* sum, float* out) {
  f32x16 total = {};
  by_lanes(n, [&](int64_t i, int64_t lanes) {
    const f32x16 v = load_lanes(residual + i, lanes) + load_lanes(x + i, lanes);
    store_lanes(sum + i, v, lanes);
    total += v;
  });
  const float mean = lane_sum(total) / float(n);
  f32x16 squares = {};
  by_lanes(n, [&](int64_t i, int64_t lanes) {
    f32x16 centred = load_lanes(sum + i, lanes) - mean;
    if (lanes < 16) centred = first_lanes(centred, lanes);
    squares += centred * centred;
  });
  const float inverse = 1.0f / __builtin_sqrtf(lane_sum(squares) / float(n) + eps);
  by_lanes(n, [&](int64_t i, int64_t lanes) {
    const f32x16 y = (load_lanes(sum + i, lanes) - mean) * inverse * load_lanes(weight + i, lanes);
    store_lanes(out + i, y + load_lanes(bias + i, lanes), lanes);
  });
}

static void norm_rotate(const float* x, const float* norm, float eps, const float* cos, const float* sin, int64_t d,
                        float scale, float* out) {
  const float factor = norm ? inverse_rms(x, eps, d) : 1.0f;
  by_lanes(d, [&](int64_t i, int64_t lanes) {
    f32x16 v = load_lanes(x + i, lanes) * factor;
    if (norm) v *= load_lanes(norm + i, lanes);
    store_lanes(out + i, v, lanes);
  });
  const int64_t half = d / 2;
  if (cos) {
    by_lanes(half, [&](int64_t i, int64_t lanes) {
      const f32x16 c = load_lanes(cos + i, lanes), s = load_lanes(sin + i, lanes);
      const f32x16 a = load_lanes(out + i, lanes), b = load_lanes(out + half + i, lanes);
      store_lanes(out + i, (a * c - b * s) * scale, lanes);
      store_lanes(out + half + i, (b * c + a * s) * scale, lanes);
    });
  } else if (scale != 1.0f) {
    by_lanes(d, [&](int64_t i, int64_t lanes) { store_lanes(out + i, load_lanes(out + i, lanes) * scale, lanes); });
  }
}

static void to_half(const float* x, int64_t n, uint16_t* out) {
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= n; i += 16) {
    const f32x16 v = load(x + i);
    // min/max return the second operand where one is not a number, so that it stays one.
    const __m512 bounded = _mm512_max_ps(_mm512_set1_ps(-65504.0f), _mm512_min_ps(_mm512_set1_ps(65504.0f), (__m512)v));
    _mm256_storeu_si256((__m256i*)(out + i), _mm512_cvtps_ph(bounded, _MM_FROUND_TO_NEAREST_INT));
  }
#endif
  for (; i < n; ++i) out[i] = float_to_half(x[i]);
}

// ---- attention of a whole source, in float32 -----------------------------------------------------------------------
//
// Packed: queries [heads][length][D], normed, rotated, scaled; keys as panels [kv heads][length / 16][d][16], so that 16
// keys are 16 lanes; values [kv heads][length rounded up to 16][D], with D = d rounded up to 16. Padding is zero.

struct Packed {
  int64_t wide;    // D
  int64_t panels;  // of 16 keys
  float* q;
  float* k;
  float* v;
  explicit Packed(const AttentionArguments& a) {
    wide = (a.d + 15) / 16 * 16;
    panels = (a.length + 15) / 16;
    q = (float*)a.packed;
    k = q + a.heads * a.length * wide;
    v = k + a.kv_heads * panels * 16 * a.d;
  }
};

constexpr int64_t kPanelsAtOnce = 8;  // keys between two updates of the running maximum: 128

static size_t attention_bytes(const AttentionArguments& a) {
  const Packed p(a);
  return sizeof(float) * (a.heads * a.length * p.wide + a.kv_heads * p.panels * 16 * (a.d + p.wide));
}

static size_t attention_scratch(const AttentionArguments& a) {
  const Packed p(a);
  return sizeof(float) * (kAttentionRows * (kPanelsAtOnce * 16 + p.wide) + p.wide);
}

static void attention_pack(const AttentionArguments& a, int64_t first, int64_t last) {
  const Packed p(a);
  const int64_t row_stride = (a.heads + 2 * a.kv_heads) * a.d, half = a.d / 2;
  const int64_t end = last == a.length ? p.panels * 16 : last;
  for (int64_t i = first; i < end; ++i) {
    const float* row = a.qkv + i * row_stride;
    const float* cos = a.cos ? a.cos + i * half : nullptr;
    const float* sin = a.cos ? a.sin + i * half : nullptr;
    for (int64_t h = 0; h < a.heads && i < last; ++h) {
      float* q = p.q + (h * a.length + i) * p.wide;
      norm_rotate(row + h * a.d, a.q_norm, a.eps, cos, sin, a.d, a.scale, q);
      memset(q + a.d, 0, sizeof(float) * (p.wide - a.d));
    }
    for (int64_t h = 0; h < a.kv_heads; ++h) {
      float* v = p.v + (h * p.panels * 16 + i) * p.wide;
      float* k = p.k + (h * p.panels + i / 16) * a.d * 16 + i % 16;
      memset(v, 0, sizeof(float) * p.wide);
      if (i < last) {
        norm_rotate(row + (a.heads + h) * a.d, a.k_norm, a.eps, cos, sin, a.d, 1.0f, v);
        for (int64_t x = 0; x < a.d; ++x) k[16 * x] = v[x];
        memcpy(v, row + (a.heads + a.kv_heads + h) * a.d, sizeof(float) * a.d);
      } else {
        for (int64_t x = 0; x < a.d; ++x) k[16 * x] = 0;
      }
    }
  }
}

// R queries of a head from `first` on.
template <int R>
T5G2_INLINE void attention_rows(const AttentionArguments& a, int64_t head, int64_t first) {
  const Packed p(a);
  const int64_t kv = head / (a.heads / a.kv_heads);
  const float* q = p.q + (head * a.length + first) * p.wide;
  float* scores = (float*)a.scratch;                          // [R][keys at once]
  float* mixed = scores + R * kPanelsAtOnce * 16;             // [R][D]
  float row_max[R], row_sum[R];
  for (int r = 0; r < R; ++r) {
    row_max[r] = -__builtin_inff();
    row_sum[r] = 0;
  }
  memset(mixed, 0, sizeof(float) * R * p.wide);
  // Query i sees keys i - left .. i + right.
  const int64_t left = a.window ? (a.window + 1) / 2 - 1 : a.length;
  const int64_t right = a.window ? a.window / 2 : a.length;
  const int64_t begin = first > left ? first - left : 0;
  const int64_t end = first + R - 1 + right < a.length - 1 ? first + R + right : a.length;
  for (int64_t panel = begin / 16; panel * 16 < end; panel += kPanelsAtOnce) {
    const int64_t left_panels = (end - panel * 16 + 15) / 16;
    const int64_t panels = left_panels < kPanelsAtOnce ? left_panels : kPanelsAtOnce;
    f32x16 block_max[R];
    for (int r = 0; r < R; ++r) block_max[r] = splat(-__builtin_inff());
    for (int64_t j = 0; j < panels; ++j) {
      const float* k = p.k + (kv * p.panels + panel + j) * a.d * 16;
      f32x16 s[R];
      for (int i = 0; i < R; ++i) s[i] = f32x16{};
      for (int64_t x = 0; x < a.d; ++x) {
        const f32x16 lanes = load(k + 16 * x);
        for (int r = 0; r < R; ++r) s[r] += lanes * q[r * p.wide + x];
      }
      const int64_t key = (panel + j) * 16;
      const bool inside = key >= first + R - 1 - left && key + 15 <= first + right && key + 15 < a.length;
      for (int r = 0; r < R; ++r) {
        float* row = scores + (r * kPanelsAtOnce + j) * 16;
        store(row, s[r]);
        if (!inside) {
          for (int lane = 0; lane < 16; ++lane) {
            const int64_t at = key + lane;
            if (at < first + r - left || at > first + r + right || at >= a.length) row[lane] = -__builtin_inff();
          }
          s[r] = load(row);
        }
        block_max[r] = maximum(s[r], block_max[r]);
      }
    }
    for (int r = 0; r < R; ++r) {
      const float block = lane_max(block_max[r]);
      if (block == -__builtin_inff()) {  // this row sees none of these keys
        memset(scores + r * kPanelsAtOnce * 16, 0, sizeof(float) * panels * 16);
        continue;
      }
      const float best = block > row_max[r] ? block : row_max[r];
      const float shrink = exponential(splat(row_max[r] - best))[0];  // exp(-inf) = 0 the first time
      f32x16 total = {};
      for (int64_t j = 0; j < panels; ++j) {
        float* s = scores + (r * kPanelsAtOnce + j) * 16;
        const f32x16 e = exponential(load(s) - best);
        store(s, e);
        total += e;
      }
      row_sum[r] = row_sum[r] * shrink + lane_sum(total);
      row_max[r] = best;
      if (shrink != 1.0f) {
        for (int64_t x = 0; x < p.wide; x += 16) store(mixed + r * p.wide + x, load(mixed + r * p.wide + x) * shrink);
      }
    }
    const float* v = p.v + (kv * p.panels * 16 + panel * 16) * p.wide;
    for (int64_t x = 0; x < p.wide; x += 16) {
      f32x16 m[R];
      for (int r = 0; r < R; ++r) m[r] = load(mixed + r * p.wide + x);
      for (int64_t key = 0; key < panels * 16; ++key) {
        const f32x16 lanes = load(v + key * p.wide + x);
        for (int r = 0; r < R; ++r) m[r] += lanes * scores[r * kPanelsAtOnce * 16 + key];
      }
      for (int r = 0; r < R; ++r) store(mixed + r * p.wide + x, m[r]);
    }
  }
  for (int r = 0; r < R; ++r) {
    float* out = a.out + (first + r) * a.heads * a.d + head * a.d;
    const float inverse = 1.0f / row_sum[r];
    by_lanes(a.d, [&](int64_t x, int64_t n) { store_lanes(out + x, load(mixed + r * p.wide + x) * inverse, n); });
  }
}

static void attention_run(const AttentionArguments& a, int64_t head, int64_t heads, int64_t first) {
  for (int64_t h = head; h < head + heads; ++h) {
    if (first + kAttentionRows <= a.length) {
      attention_rows<kAttentionRows>(a, h, first);
    } else {
      for (int64_t i = first; i < a.length; ++i) attention_rows<1>(a, h, i);
    }
  }
}

// ---- one stretch of keys for a group of queries, in the decoder ----------------------------------------------------

template <bool Half>
T5G2_INLINE f32x16 load_entry(const void* p, int64_t i) {
  return Half ? load_half((const uint16_t*)p + i) : load((const float*)p + i);
}

// How far ahead of the keys that are read, in bytes.
constexpr int64_t kPrefetchKeys = 1024;

template <int G, bool Half>
T5G2_INLINE void stretch_rows(const StretchArguments& a) {
  constexpr int64_t kChunk = 64;
  float scores[G][kChunk];
  for (int64_t first = 0; first < a.count; first += kChunk) {
    const int64_t n = a.count - first < kChunk ? a.count - first : kChunk;
    for (int64_t j = 0; j < n; ++j) {
      const int64_t at = (first + j) * a.d;
      // The values, of which the second loop reads a column of many rows at a time, come in while the keys are read.
      constexpr int64_t kSize = Half ? 2 : 4;
      for (int64_t byte = 0; byte < a.d * kSize; byte += 64) {
        __builtin_prefetch((const char*)a.keys + at * kSize + byte + kPrefetchKeys);
        __builtin_prefetch((const char*)a.values + at * kSize + byte);
      }
      f32x16 s[G];
      for (int i = 0; i < G; ++i) s[i] = f32x16{};
      for (int64_t x = 0; x < a.d; x += 16) {
        const f32x16 k = load_entry<Half>(a.keys, at + x);
        for (int g = 0; g < G; ++g) s[g] += k * load(a.q + g * a.d + x);
      }
      for (int g = 0; g < G; ++g) scores[g][j] = lane_sum(s[g]);
    }
    for (int g = 0; g < G; ++g) {
      for (int64_t j = n; j < kChunk; ++j) scores[g][j] = -__builtin_inff();
      f32x16 largest = load(scores[g]);
      for (int64_t j = 16; j < kChunk; j += 16) largest = maximum(load(scores[g] + j), largest);
      const float block = lane_max(largest);
      const float best = block > a.max[g] ? block : a.max[g];
      const float shrink = exponential(splat(a.max[g] - best))[0];
      f32x16 total = {};
      for (int64_t j = 0; j < kChunk; j += 16) {
        const f32x16 e = exponential(load(scores[g] + j) - best);
        store(scores[g] + j, e);
        total += e;
      }
      a.sum[g] = a.sum[g] * shrink + lane_sum(total);
      a.max[g] = best;
      if (shrink != 1.0f) {
        for (int64_t x = 0; x < a.d; x += 16) store(a.mixed + g * a.d + x, load(a.mixed + g * a.d + x) * shrink);
      }
    }
    for (int64_t x = 0; x < a.d; x += 16) {
      f32x16 m[G];
      for (int g = 0; g < G; ++g) m[g] = load(a.mixed + g * a.d + x);
      for (int64_t j = 0; j < n; ++j) {
        const f32x16 v = load_entry<Half>(a.values, (first + j) * a.d + x);
        for (int g = 0; g < G; ++g) m[g] += v * scores[g][j];
      }
      for (int g = 0; g < G; ++g) store(a.mixed + g * a.d + x, m[g]);
    }
  }
}

template <int G>
T5G2_INLINE void stretch_of(const StretchArguments& a) {
  if (a.half) {
    stretch_rows<G, true>(a);
  } else {
    stretch_rows<G, false>(a);
  }
}

static void stretch(const StretchArguments& a) {
  switch (a.queries) {
    case 1: return stretch_of<1>(a);
    case 2: return stretch_of<2>(a);
    case 3: return stretch_of<3>(a);
    default: return stretch_of<4>(a);
  }
}

// The table of an instruction set: these kernels and the given integer ones.
#define T5G2_KERNELS(label, dot_int4, dot_int8) \
  T5G2_UNPACKING_KERNELS(label, nullptr, nullptr, nullptr, dot_int4, dot_int8, nullptr, nullptr)
#define T5G2_UNPACKING_KERNELS(label, unpack_int4, unpack_int8, finish, dot_int4, dot_int8, pair_int4, pair_int8)     \
  {                                                                                                                   \
    label, quantize_row, unpack_int4, unpack_int8, finish, dot_int4, dot_int8, pair_int4, pair_int8, dot_float,       \
        nullptr, nullptr, nullptr, nullptr, nullptr, store_rows, rms_norm_row, add_rms_norm_row,                      \
        add_layer_norm_row, norm_rotate, to_half, kAttentionRows, attention_bytes, attention_scratch, attention_pack, \
        attention_run, stretch                                                                                        \
  }

}  // namespace t5g2::T5G2_ISA
