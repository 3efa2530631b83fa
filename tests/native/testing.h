// What the tests share: checks with messages, random numbers from a seed, packed matrices, and a thread pool of our own.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <random>
#include <vector>

#include "check.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/packed.h"

namespace t5g2::test {

inline const char* kernels_in_use() { return kernels().name; }

// How many threads the kernels' loops use from here on; see testing.cpp.
void set_threads(int64_t count);

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  int64_t integer(int64_t low, int64_t high) { return low + int64_t(engine_() % uint64_t(high - low + 1)); }
  bool coin() { return engine_() & 1; }
  float uniform(float low, float high) { return low + (high - low) * float(engine_() >> 40) / float(1 << 24); }

  // Roughly normal.
  float value() { return uniform(-1, 1) + uniform(-1, 1) + uniform(-1, 1); }

  std::vector<float> values(int64_t count, float scale = 1) {
    std::vector<float> out(count);
    for (float& x : out) x = scale * value();
    return out;
  }

  template <class T>
  T pick(std::initializer_list<T> choices) {
    return choices.begin()[integer(0, int64_t(choices.size()) - 1)];
  }

 private:
  std::mt19937_64 engine_;
};

// Memory of exactly `count` elements, so that the address sanitizer sees a step beyond. Aligned to 64 bytes, or, as constants
// in a mapped file may be, to 16 only.
template <class T>
class Exact {
 public:
  explicit Exact(int64_t count, bool only_16 = false) : offset_(only_16 ? 16 : 0) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, offset_ + std::max<size_t>(1, count * sizeof(T)))) std::abort();
    memory_ = static_cast<uint8_t*>(memory);
    std::memset(memory_, 0xa5, offset_ + count * sizeof(T));
  }
  Exact(const Exact&) = delete;
  Exact& operator=(const Exact&) = delete;
  ~Exact() { std::free(memory_); }
  T* data() { return reinterpret_cast<T*>(memory_ + offset_); }
  T& operator[](int64_t i) { return data()[i]; }

 private:
  size_t offset_;
  uint8_t* memory_;
};

// A random matrix, as numbers and packed; quant/packed.py describes the layout, which is written out again here.
struct Matrix {
  Packed shape{};
  std::vector<int> values;       // [rows][columns]; int4 and int8
  std::vector<float> scales;     // [rows][groups], which bfloat16 holds
  std::vector<float> floats;     // [rows][columns]; float32
  std::vector<uint8_t> bytes;

  int64_t rows() const { return shape.rows; }
  int64_t columns() const { return shape.columns; }
  int value(int64_t n, int64_t k) const { return values[n * shape.columns + k]; }
};

// extreme: every weight is the largest or smallest that the bytes hold.
Matrix random_matrix(Random& random, int64_t rows, int64_t columns, int64_t bits, int64_t group_size, bool extreme = false);

// x in int8 with a scale, or as it is for float32 weights.
struct Row {
  std::vector<int> q;
  float scale;
};
Row quantize(const float* x, int64_t columns);

// Row n of the matrix times x, before the activations' scale: exact integers per group, added in order by fused multiply-add.
float dot(const Matrix& w, int64_t n, const int* q);

double gelu(double x);
uint16_t to_half(float x);    // nearest, ties to even; saturates; not a number stays one
float from_half(uint16_t h);

// The largest |a - b| over the largest |b|; a: what a kernel computed, b: what is right.
double worst(const float* a, const double* b, int64_t count);

// The tests of operators_test.cpp.
void test_operators(Random& random);

}  // namespace t5g2::test
