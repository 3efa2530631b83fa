// The one function of ExecuTorch's thread pool that programs need and whose header the wheel leaves out.

#pragma once

#include <cstddef>
#include <cstdint>

namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

// Sets how many threads the pool has, which all programs of the process share.
inline void set_threads(size_t threads) {
  executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(uint32_t(threads));
}
