#include "testing.h"

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include <executorch/runtime/kernel/thread_parallel_interface.h>

namespace t5g2::test {

Matrix random_matrix(Random& random, int64_t rows, int64_t columns, int64_t bits, int64_t group_size, bool extreme) {
  Matrix m;
  m.shape = {nullptr, rows, columns, bits, group_size};
  m.bytes.assign(m.shape.bytes(), 0);
  const int64_t block_bytes = m.shape.block_bytes(), groups = m.shape.groups(), padded = m.shape.padded_columns();
  if (bits == 32) {
    m.floats = random.values(rows * columns);
    for (int64_t n = 0; n < rows; ++n) {
      for (int64_t k = 0; k < columns; ++k) {
        std::memcpy(&m.bytes[n / 16 * block_bytes + (k * 16 + n % 16) * 4], &m.floats[n * columns + k], 4);
      }
    }
    return m;
  }
  const int low = bits == 4 ? -8 : -128, high = bits == 4 ? 7 : 127;
  m.values.resize(rows * columns);
  for (int& v : m.values) v = extreme ? (random.coin() ? low : high) : int(random.integer(low, high));
  m.scales.resize(rows * groups);
  for (int64_t n = 0; n < (rows + 15) / 16 * 16; ++n) {
    uint8_t* block = &m.bytes[n / 16 * block_bytes];
    for (int64_t k = 0; k < padded; ++k) {
      const int v = n < rows && k < columns ? m.value(n, k) : 0;
      if (bits == 8) {
        block[(k / 4 * 16 + n % 16) * 4 + k % 4] = uint8_t(v);
      } else {
        block[(k / 8 * 16 + n % 16) * 4 + k % 4] |= uint8_t((v + 8) << (k % 8 < 4 ? 0 : 4));
      }
    }
    for (int64_t g = 0; g < groups && n < rows; ++g) {
      float scale = random.uniform(0.001f, 1);
      if (random.integer(0, 15) == 0) scale = random.pick({0.0f, 1e-30f, 1e6f});
      uint32_t word;
      std::memcpy(&word, &scale, 4);
      const uint16_t upper = uint16_t(word >> 16);
      std::memcpy(block + m.shape.weight_bytes() + (g * 16 + n % 16) * 2, &upper, 2);
      word = uint32_t(upper) << 16;
      std::memcpy(&m.scales[n * groups + g], &word, 4);
    }
  }
  return m;
}

Row quantize(const float* x, int64_t columns) {
  float largest = 0;
  for (int64_t k = 0; k < columns; ++k) largest = std::max(largest, std::fabs(x[k]));
  Row row{std::vector<int>(columns, 0), largest / 127.0f};
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
  if (std::isinf(inverse)) return row;  // a row below 127 / FLT_MAX counts as zeros
  for (int64_t k = 0; k < columns; ++k) row.q[k] = int(std::nearbyint(x[k] * inverse));
  return row;
}

float dot(const Matrix& w, int64_t n, const int* q) {
  const int64_t group = w.shape.group(), groups = w.shape.groups();
  float total = 0;
  for (int64_t g = 0; g < groups; ++g) {
    int64_t sum = 0;
    for (int64_t k = g * group; k < std::min((g + 1) * group, w.columns()); ++k) sum += q[k] * w.value(n, k);
    total = std::fmaf(float(sum), w.scales[n * groups + g], total);
  }
  return total;
}

double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

float from_half(uint16_t h) {
  const int exponent = h >> 10 & 31, fraction = h & 1023;
  double magnitude;
  if (exponent == 31) {
    magnitude = fraction ? NAN : INFINITY;
  } else if (exponent == 0) {
    magnitude = std::ldexp(fraction, -24);
  } else {
    magnitude = std::ldexp(1024 + fraction, exponent - 25);
  }
  return float(h & 0x8000 ? -magnitude : magnitude);
}

uint16_t to_half(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  if (std::isnan(x)) return sign | 0x7e00;
  const double magnitude = std::min(std::fabs(double(x)), 65504.0);
  if (magnitude == 0) return sign;
  int exponent;
  std::frexp(magnitude, &exponent);
  exponent = std::max(exponent - 11, -24);  // of the last bit
  const double units = std::nearbyint(std::ldexp(magnitude, -exponent));
  // Units of 1024 .. 2048, where 2048 carries into the exponent field by itself; fewer are subnormal.
  return uint16_t(sign | (uint16_t(units) + (uint16_t(exponent + 24) << 10)));
}

double worst(const float* a, const double* b, int64_t count) {
  double difference = 0, largest = 1e-30;
  for (int64_t i = 0; i < count; ++i) {
    if (std::isnan(a[i]) != std::isnan(b[i])) return INFINITY;
    difference = std::max(difference, std::fabs(a[i] - b[i]));
    largest = std::max(largest, std::fabs(b[i]));
  }
  return difference / largest;
}

namespace {

// A few threads that wait for work. ExecuTorch's own pool is compiled without sanitizers: the thread sanitizer does not
// see how it hands work over, and its number of threads is the machine's.
class Pool {
 public:
  ~Pool() { resize(1); }

  int64_t count() const { return int64_t(threads_.size()) + 1; }

  void resize(int64_t count) {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      ++round_;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    stopping_ = false;
    for (int64_t i = 1; i < count; ++i) threads_.emplace_back([this, round = round_] { wait_for_work(round); });
  }

  void run(int64_t items, executorch::runtime::FunctionRef<void(int64_t, int64_t)> body) {
    const auto work = [&] {
      for (;;) {
        int64_t item;
        {
          const std::lock_guard lock(mutex_);
          if (next_ >= items) return;
          item = next_++;
        }
        body(item, item + 1);
      }
    };
    {
      const std::lock_guard lock(mutex_);
      next_ = 0;
      busy_ = int64_t(threads_.size());
      work_ = work;
      ++round_;
    }
    wake_.notify_all();
    work();
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return busy_ == 0; });
  }

 private:
  void wait_for_work(int64_t round) {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return round_ != round; });
      round = round_;
      if (stopping_) return;
      const auto work = work_;
      lock.unlock();
      work();
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  std::function<void()> work_;
  int64_t next_ = 0, busy_ = 0, round_ = 0;
  bool stopping_ = false;
};

Pool& pool() {
  static Pool instance;
  return instance;
}

}  // namespace

void set_threads(int64_t count) { pool().resize(count); }

}  // namespace t5g2::test

// In place of libexecutorch_threadpool's: a program's own functions come before a library's.
namespace executorch::extension {

int64_t get_thread_count() { return t5g2::test::pool().count(); }

bool parallel_for(int64_t begin, int64_t end, int64_t grain_size, runtime::FunctionRef<void(int64_t, int64_t)> f) {
  const int64_t items = (end - begin + grain_size - 1) / grain_size;
  t5g2::test::pool().run(items, [&](int64_t item, int64_t) {
    f(begin + item * grain_size, std::min(end, begin + (item + 1) * grain_size));
  });
  return true;
}

}  // namespace executorch::extension
