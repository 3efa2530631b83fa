// Activations times packed weights.

#pragma once

#include <cstdint>

#include "kernels.h"
#include "packed.h"

namespace t5g2 {

constexpr int64_t kRowsAtOnce = 48;  // of activations: they stay in a core's first cache while blocks pass by
constexpr int64_t kTiledRowsAtOnce = 128;  // of tiles of bfloat16, which pass by while blocks stay there

// Rows of activations in the form that the weights' format multiplies: int8 per row, or float32 as they are.
struct Activations {
  int64_t rows;
  int64_t stride;         // columns rounded up to 64
  const void* x;          // [rows rounded up to 16][stride]
  int64_t size;           // of an element of x: 1 (int8), 2 (bfloat16, see Kernels::dot_bf16) or 4 (float)
  const int32_t* starts;  // [rows][groups], see DotArguments
  const float* scales;    // [rows]; null where x is not quantized
};

// Quantizes x [rows][columns] for `weights`, into memory of the calling thread that the next call overwrites.
Activations prepare(const float* x, int64_t rows, const Packed& weights);

// How many rows to prepare and multiply at a time: what they are made into stays in a core's second cache while all blocks
// pass by.
int64_t slice_rows(const Packed& weights);

struct LinearArguments {
  Packed weights;
  int64_t first_block = 0;      // of the weights
  int64_t rows = 0;             // of the result's columns, from first_block on
  const float* bias = nullptr;  // [rows]
  bool gelu = false;
  bool gated = false;           // blocks alternate gate and up: out = gelu(gate) * up, `rows` wide
  float* out = nullptr;         // [activations.rows][stride]
  int64_t stride = 0;
};

void linear(const Activations& x, const LinearArguments& arguments);

// The same for x [rows][columns], prepared slice by slice.
void linear(const float* x, int64_t rows, const LinearArguments& arguments);

// Calls body(first, count) for one slice of `rows` rows after another.
template <class Body>
void by_slices(int64_t rows, const Packed& weights, const Body& body) {
  const int64_t most = slice_rows(weights);
  for (int64_t first = 0, count; first < rows; first += count) {
    // Fewer rows than a tile's would be multiplied in another way than those before them: the last slice takes them in.
    count = rows - first < most + kTileRows ? rows - first : most;
    body(first, count);
  }
}

}  // namespace t5g2
