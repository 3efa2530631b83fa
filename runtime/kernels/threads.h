// Loops on ExecuTorch's thread pool, and memory that each thread keeps between calls.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include <executorch/runtime/kernel/thread_parallel_interface.h>

namespace t5g2 {

// Calls body(first, last) for pieces of [0, items) of at most `piece`, handed out as threads become free: cores differ in
// speed, on a phone by design and on a shared machine by chance. The body must not throw.
template <class Body>
void parallel(int64_t items, int64_t piece, const Body& body) {
  if (items <= 0) return;
  const int64_t threads = executorch::extension::get_thread_count();
  if (threads <= 1 || items <= piece) return body(int64_t(0), items);
  std::atomic<int64_t> next{0};
  const auto work = [&](int64_t, int64_t) {
    for (;;) {
      const int64_t first = next.fetch_add(piece, std::memory_order_relaxed);
      if (first >= items) return;
      body(first, first + piece < items ? first + piece : items);
    }
  };
  executorch::extension::parallel_for(0, threads, 1, work);
}

inline int64_t threads() { return executorch::extension::get_thread_count(); }

// 64-byte aligned memory that grows and is freed with its thread. What it held is lost when it grows.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  // Throws std::bad_alloc.
  uint8_t* reserve(size_t bytes) {
    if (bytes > size_) {
      std::free(data_);
      size_ = 0;
      data_ = nullptr;
      void* data;
      if (posix_memalign(&data, 64, (bytes + 63) / 64 * 64)) throw std::bad_alloc();  // Android 8 has no aligned_alloc
      data_ = static_cast<uint8_t*>(data);
      size_ = bytes;
    }
    return data_;
  }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace t5g2
