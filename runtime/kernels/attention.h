// Attention of an encoder over a whole source, and merged attention of a decoder step.

#pragma once

#include "kernels.h"

namespace t5g2 {

// Fills in the buffers of `arguments` and runs it on the thread pool. exact: in float32 throughout.
void attention(AttentionArguments arguments, bool exact);

// Writes a key or a value to a cache: float16 or float32.
void store_entry(const float* x, int64_t d, bool half, void* entry);

struct MergedArguments {
  const float* qkv;       // [rows][(heads + 2 kv heads) * d]
  const float* cos;       // [rows][d / 2]
  const float* sin;
  const float* q_norm;    // [d]
  const float* k_norm;
  float eps;
  float scale;
  int64_t rows;
  int64_t position;       // of row 0
  int64_t heads;
  int64_t kv_heads;
  int64_t d;
  int64_t window;         // 0: none
  int64_t slots;
  int64_t source;         // cross keys
  bool half;              // float16 caches, float otherwise
  void* keys;             // self cache [kv heads][slots][d]
  void* values;
  const void* cross_keys;  // [kv heads][source][d]
  const void* cross_values;
  float* out;             // [rows][heads * d]
};

void merged_attention(const MergedArguments& arguments);

}  // namespace t5g2
