// In place of libexecutorch_threadpool's functions, as a program's own come before a library's: everything runs on the calling
// thread. Threads of a pool wait in a loop, and how often they go round it is never the same twice.

#include <executorch/runtime/kernel/thread_parallel_interface.h>

namespace executorch::extension {

__attribute__((visibility("default"))) int64_t get_thread_count() { return 1; }

__attribute__((visibility("default"))) bool parallel_for(int64_t begin, int64_t end, int64_t,
                                                         runtime::FunctionRef<void(int64_t, int64_t)> f) {
  f(begin, end);
  return true;
}

}  // namespace executorch::extension
