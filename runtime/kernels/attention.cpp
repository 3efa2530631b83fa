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

// Every piece of keys is answered for all queries by one thread, with a running softmax of its own; these are added up.
void merged_attention(const MergedArguments& a) {
  constexpr int64_t kPieceKeys = 128;
  static thread_local Buffer queries, partial;
  const Kernels& k = kernels();
  const int64_t group = a.heads / a.kv_heads, all = a.rows * a.heads;
  float* q = reinterpret_cast<float*>(queries.reserve(all * a.d * sizeof(float)));
  prepare(k, a, q);

  // The self keys that any row sees: positions oldest .. newest; then the cross keys. In pieces, per kv head.
  const int64_t newest = a.position + a.rows - 1;
  const int64_t oldest = a.window ? std::max<int64_t>(0, a.position - a.window + 1) : 0;
  const int64_t self_pieces = (newest - oldest + kPieceKeys) / kPieceKeys;
  const int64_t cross_pieces = (a.source + kPieceKeys - 1) / kPieceKeys;
  const int64_t pieces = self_pieces + cross_pieces;
  const int64_t workers = std::min(threads(), pieces * a.kv_heads);
  const int64_t state_size = all * (a.d + 2);
  float* states = reinterpret_cast<float*>(partial.reserve(workers * state_size * sizeof(float)));
  std::atomic<int64_t> next_piece{0};

  const auto stretch = [&](const State& s, int64_t row, int64_t kv, const void* keys, const void* values, int64_t entry,
                           int64_t count) {
    for (int64_t g = 0; g < group; g += kMaxQueries) {
      const int64_t query = row * a.heads + kv * group + g;
      k.stretch({q + query * a.d, std::min(kMaxQueries, group - g), at(keys, entry, a), at(values, entry, a), a.half, count,
                 a.d, s.max + query, s.sum + query, s.mixed + query * a.d});
    }
  };
  const auto run_piece = [&](const State& s, int64_t kv, int64_t piece) {
    if (piece >= self_pieces) {
      const int64_t first = (piece - self_pieces) * kPieceKeys;
      for (int64_t r = 0; r < a.rows; ++r) {
        stretch(s, r, kv, a.cross_keys, a.cross_values, (kv * a.source + first) * a.d, std::min(kPieceKeys, a.source - first));
      }
      return;
    }
    for (int64_t r = 0; r < a.rows; ++r) {
      int64_t first = oldest + piece * kPieceKeys;
      const int64_t end = std::min(first + kPieceKeys, a.position + r + 1);
      if (a.window) first = std::max(first, a.position + r - a.window + 1);
      while (first < end) {  // twice where the ring wraps
        const int64_t slot = first % a.slots, count = std::min(end - first, a.slots - slot);
        stretch(s, r, kv, a.keys, a.values, (kv * a.slots + slot) * a.d, count);
        first += count;
      }
    }
  };
  parallel(workers, 1, [&](int64_t first, int64_t last) {
    for (int64_t w = first; w < last; ++w) {
      float* state = states + w * state_size;
      const State s{state, state + all, state + 2 * all};
      std::fill(s.max, s.max + all, -INFINITY);
      std::fill(s.sum, s.sum + all * (1 + a.d), 0.0f);
      for (;;) {
        const int64_t piece = next_piece.fetch_add(1, std::memory_order_relaxed);
        if (piece >= pieces * a.kv_heads) break;
        run_piece(s, piece / pieces, piece % pieces);
      }
    }
  });
  for (int64_t query = 0; query < all; ++query) {
    float best = -INFINITY, sum = 0;
    for (int64_t w = 0; w < workers; ++w) best = std::max(best, states[w * state_size + query]);
    float* out = a.out + query * a.d;
    std::fill(out, out + a.d, 0.0f);
    for (int64_t w = 0; w < workers; ++w) {
      const float* state = states + w * state_size;
      const float weight = std::exp(state[query] - best);
      sum += weight * state[all + query];
      const float* mixed = state + 2 * all + query * a.d;
      for (int64_t x = 0; x < a.d; ++x) out[x] += weight * mixed[x];
    }
    for (int64_t x = 0; x < a.d; ++x) out[x] /= sum;
  }
}

}  // namespace t5g2
