#include "program.h"

#include <dlfcn.h>

#include <mutex>
#include <shared_mutex>

#include <executorch/runtime/kernel/thread_parallel_interface.h>
#include <executorch/runtime/platform/platform.h>
#include <executorch/runtime/platform/runtime.h>

#include "error.h"
#include "file.h"
#include "thread_pool.h"

namespace t5g2 {
namespace {

using executorch::extension::Module;
using executorch::runtime::EValue;
using executorch::runtime::FreeableBuffer;

// What ExecuTorch last said in this thread.
thread_local std::string last_said;

// A library does not print. ExecuTorch logs at every start, such as failed look-ups of the CPU's model.
void keep_errors(et_timestamp_t, et_pal_log_level_t level, const char*, const char*, size_t, const char* message,
                 size_t length) {
  if (level != kError && level != kFatal) return;
  try {
    last_said.assign(message, length);
  } catch (const std::bad_alloc&) {
  }
}

void set_up_executorch() {
  static const bool done = [] {
    executorch::runtime::register_pal(executorch::runtime::PalImpl::create(keep_errors, __FILE__));
    executorch::runtime::runtime_init();
    return true;
  }();
  (void)done;
}

void check(executorch::runtime::Error error, const std::string& what) {
  if (error == executorch::runtime::Error::Ok) return;
  std::string why = std::exchange(last_said, "");
  for (char& c : why) {
    if (c == '\n') c = ' ';
  }
  if (why.empty()) why = join("ExecuTorch error ", int(error));
  fail(what, " (", why, "); export the bundle again");
}

// ExecuTorch's view of a mapped file: segments are read where they lie.
class MappedProgram : public executorch::runtime::DataLoader {
 public:
  explicit MappedProgram(const std::string& path) : file_(path, true) {}

  executorch::runtime::Result<FreeableBuffer> load(size_t offset, size_t size, const SegmentInfo&) const override {
    const auto bytes = file_.bytes();
    if (offset > bytes.size() || size > bytes.size() - offset) return executorch::runtime::Error::InvalidProgram;
    return FreeableBuffer(bytes.data() + offset, size, nullptr);
  }
  executorch::runtime::Result<size_t> size() const override { return file_.bytes().size(); }

 private:
  const MappedFile file_;
};

// Held shared while a program is loaded or runs, exclusively while the pool it runs on is changed.
std::shared_mutex pool_in_use;

}  // namespace

Program::Program(const std::string& path, const std::vector<std::string>& methods,
                 executorch::runtime::EventTracer* tracer)
    : path_(path), tracer_(tracer) {
  set_up_executorch();
  module_ = std::make_unique<Module>(std::make_unique<MappedProgram>(path));
  using Verification = executorch::runtime::Program::Verification;
  check(module_->load(Verification::InternalConsistency), path + ": ExecuTorch does not load it");
  for (const std::string& method : methods) {
    const auto meta = module_->method_meta(method);
    check(meta.error(), path + ": no method " + method);
    memory_[method] = std::make_unique<PlannedMemory>(*meta);
    delegates_ |= meta->num_backends() > 0;
  }
  const std::shared_lock lock(pool_in_use);
  load_methods();
}

void Program::load_methods() {
  for (auto& [method, memory] : memory_) {
    module_->unload_method(method);
    check(module_->load_method(method, memory->allocator(), tracer_), path_ + ": no usable method " + method);
  }
  pool_ = executorch::extension::threadpool::get_pthreadpool();
}

std::vector<EValue> Program::run(const std::string& method, const std::vector<EValue>& inputs) {
  const std::shared_lock lock(pool_in_use);
  // XNNPACK would run on a pool that is gone. Others than set_threads change it too, such as Python's executorch.
  if (delegates_ && pool_ != executorch::extension::threadpool::get_pthreadpool()) load_methods();
  auto outputs = module_->execute(method, inputs);
  check(outputs.error(), path_ + ": " + method + " failed");
  return std::move(*outputs);
}

void load_library(const char* name) {
  set_up_executorch();
  if (dlopen(name, RTLD_NOW | RTLD_GLOBAL)) return;
  fail(name, ": does not load (", dlerror(), "); install it beside the engine");
}

int32_t thread_count() {
  set_up_executorch();
  const std::shared_lock lock(pool_in_use);
  return int32_t(executorch::extension::get_thread_count());
}

void set_threads(int32_t threads) {
  set_up_executorch();
  if (thread_count() == threads) return;
  const std::unique_lock lock(pool_in_use);
  executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(uint32_t(threads));
}

}  // namespace t5g2
