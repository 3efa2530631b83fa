#include "attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "threads.h"

namespace t5g2 {

void attention(AttentionArguments a, bool exact) {
  static thread_local Buffer packed;
  const Kernels& k = kernels(exact);
  a.packed = packed.reserve(k.attention_bytes(a));
  const size_t scratch_bytes = k.attention_scratch(a);
  const auto with_scratch = [&](auto body) {
    return [&, body](int64_t first, int64_t last) {
      static thread_local Buffer scratch;
      AttentionArguments mine = a;
      mine.scratch = scratch.reserve(scratch_bytes);
      body(mine, first, last);
    };
  };
  constexpr int64_t kPackRows = 32;
  const int64_t pieces = (a.length + kPackRows - 1) / kPackRows;
  parallel(pieces, 1, with_scratch([&](const AttentionArguments& mine, int64_t first, int64_t last) {
             k.attention_pack(mine, first * kPackRows, std::min(last * kPackRows, a.length));
           }));
  const int64_t tiles = (a.length + k.attention_tile - 1) / k.attention_tile;
  const int64_t together = heads_together(a);
  parallel(tiles * a.heads / together, 1, with_scratch([&](const AttentionArguments& mine, int64_t first, int64_t last) {
             for (int64_t i = first; i < last; ++i) {
               k.attention_run(mine, i / tiles * together, together, i % tiles * k.attention_tile);
             }
             if (k.finish) k.finish();
           }));
}

void store_entry(const float* x, int64_t d, bool half, void* entry) {
  if (half) {
    kernels().to_half(x, d, static_cast<uint16_t*>(entry));
  } else {
    std::memcpy(entry, x, d * sizeof(float));
  }
}

namespace {

// Keys of one piece, where they make no more than so many pieces.
constexpr int64_t kPieceKeys = 128, kMostPieces = 32;

// The running softmax of one query over the stretches it has seen.
struct State {
  float* max;
  float* sum;
  float* mixed;  // [d] each
};

size_t element_size(const MergedArguments& a) { return a.half ? 2 : 4; }

const void* at(const void* base, int64_t element, const MergedArguments& a) {
  return static_cast<const uint8_t*>(base) + element * element_size(a);
}

void* at(void* base, int64_t element, const MergedArguments& a) {
  return static_cast<uint8_t*>(base) + element * element_size(a);
}

// Norms and rotates the queries, and writes the new keys and values to their slots.
void prepare(const Kernels& k, const MergedArguments& a, float* q) {
  static thread_local Buffer buffer;
  float* key = reinterpret_cast<float*>(buffer.reserve(a.d * sizeof(float)));
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* row = a.qkv + r * (a.heads + 2 * a.kv_heads) * a.d;
    const float *cos = a.cos + r * (a.d / 2), *sin = a.sin + r * (a.d / 2);
    for (int64_t h = 0; h < a.heads; ++h) {
      k.norm_rotate(row + h * a.d, a.q_norm, a.eps, cos, sin, a.d, a.scale, q + (r * a.heads + h) * a.d);
    }
    const int64_t slot = (a.position + r) % a.slots;
    for (int64_t h = 0; h < a.kv_heads; ++h) {
      const int64_t entry = (h * a.slots + slot) * a.d;
      k.norm_rotate(row + (a.heads + h) * a.d, a.k_norm, a.eps, cos, sin, a.d, 1.0f, key);
      store_entry(key, a.d, a.half, at(a.keys, entry, a));
      store_entry(row + (a.heads + a.kv_heads + h) * a.d, a.d, a.half, at(a.values, entry, a));
    }
  }
}

}  // namespace

// Every piece of keys is answered for the queries of its kv head with a running softmax of its own; these are added up in
// order, so that results do not depend on the threads.
void merged_attention(const MergedArguments& a) {
  static thread_local Buffer queries, partial;
  const Kernels& k = kernels();
  const int64_t group = a.heads / a.kv_heads, all = a.rows * a.heads;
  float* q = reinterpret_cast<float*>(queries.reserve(all * a.d * sizeof(float)));
  prepare(k, a, q);

  // The self keys that any row sees: positions oldest .. newest; then the cross keys. In pieces, per kv head.
  const int64_t newest = a.position + a.rows - 1;
  const int64_t oldest = a.window ? std::max<int64_t>(0, a.position - a.window + 1) : 0;
  const int64_t seen = newest - oldest + 1;
  const int64_t piece_keys = std::max(kPieceKeys, (seen + a.source) / kMostPieces);
  const int64_t self_pieces = (seen + piece_keys - 1) / piece_keys;
  const int64_t pieces = self_pieces + (a.source + piece_keys - 1) / piece_keys;
  const int64_t state_queries = a.rows * group, state_size = state_queries * (a.d + 2);
  float* states = reinterpret_cast<float*>(partial.reserve(a.kv_heads * pieces * state_size * sizeof(float)));
  const auto state_of = [&](int64_t kv, int64_t piece) {
    float* state = states + (kv * pieces + piece) * state_size;
    return State{state, state + state_queries, state + 2 * state_queries};
  };

  const auto stretch = [&](const State& s, int64_t row, int64_t kv, const void* keys, const void* values, int64_t entry,
                           int64_t count) {
    for (int64_t g = 0; g < group; g += kMaxQueries) {
      const int64_t query = row * group + g;
      k.stretch({q + (row * a.heads + kv * group + g) * a.d, std::min(kMaxQueries, group - g), at(keys, entry, a),
                 at(values, entry, a), a.half, count, a.d, s.max + query, s.sum + query, s.mixed + query * a.d});
    }
  };
  const auto run_piece = [&](const State& s, int64_t kv, int64_t piece) {
    std::fill(s.max, s.max + state_queries, -INFINITY);
    std::fill(s.sum, s.sum + state_queries * (1 + a.d), 0.0f);
    if (piece >= self_pieces) {
      const int64_t first = (piece - self_pieces) * piece_keys;
      for (int64_t r = 0; r < a.rows; ++r) {
        stretch(s, r, kv, a.cross_keys, a.cross_values, (kv * a.source + first) * a.d, std::min(piece_keys, a.source - first));
      }
      return;
    }
    for (int64_t r = 0; r < a.rows; ++r) {
      int64_t first = oldest + piece * piece_keys;
      const int64_t end = std::min(first + piece_keys, a.position + r + 1);
      if (a.window) first = std::max(first, a.position + r - a.window + 1);
      while (first < end) {  // twice where the ring wraps
        const int64_t slot = first % a.slots, count = std::min(end - first, a.slots - slot);
        stretch(s, r, kv, a.keys, a.values, (kv * a.slots + slot) * a.d, count);
        first += count;
      }
    }
  };
  parallel(a.kv_heads * pieces, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) run_piece(state_of(i / pieces, i % pieces), i / pieces, i % pieces);
  });
  for (int64_t query = 0; query < all; ++query) {
    const int64_t kv = query % a.heads / group, mine = query / a.heads * group + query % group;
    float best = -INFINITY, sum = 0;
    for (int64_t i = 0; i < pieces; ++i) best = std::max(best, state_of(kv, i).max[mine]);
    float* out = a.out + query * a.d;
    std::fill(out, out + a.d, 0.0f);
    for (int64_t i = 0; i < pieces; ++i) {
      const State s = state_of(kv, i);
      const float weight = std::exp(s.max[mine] - best);
      sum += weight * s.sum[mine];
      for (int64_t x = 0; x < a.d; ++x) out[x] += weight * s.mixed[mine * a.d + x];
    }
    for (int64_t x = 0; x < a.d; ++x) out[x] /= sum;
  }
}

}  // namespace t5g2
