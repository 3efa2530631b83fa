// What programs need of ExecuTorch's thread pool, whose header the wheel leaves out.

#pragma once

#include <cstdint>

struct pthreadpool;

namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);  // not while a program runs
};
ThreadPool* get_threadpool();
pthreadpool* get_pthreadpool();  // what backends run on
}  // namespace executorch::extension::threadpool
