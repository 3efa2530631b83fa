// The memory that a method's plan asks for, committed by the system page by page as it is first written.
//
// A program is planned for its longest source; ExecuTorch's own buffers are zeroed when a method is loaded, which makes all
// of that resident at once. This costs what the source at hand uses.

#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <new>
#include <vector>

#include <executorch/runtime/core/hierarchical_allocator.h>
#include <executorch/runtime/core/span.h>
#include <executorch/runtime/executor/method_meta.h>

namespace t5g2 {

class PlannedMemory {
 public:
  // Throws std::bad_alloc where the system refuses.
  explicit PlannedMemory(const executorch::runtime::MethodMeta& meta) : allocator_({}) {
    for (size_t i = 0; i < meta.num_memory_planned_buffers(); ++i) {
      const size_t size = size_t(meta.memory_planned_buffer_size(i).get());
      void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED) throw std::bad_alloc();
      buffers_.emplace_back(static_cast<uint8_t*>(memory), size);
    }
    allocator_ = executorch::runtime::HierarchicalAllocator({buffers_.data(), buffers_.size()});
  }
  ~PlannedMemory() {
    for (auto& buffer : buffers_) munmap(buffer.data(), buffer.size());
  }
  PlannedMemory(const PlannedMemory&) = delete;
  PlannedMemory& operator=(const PlannedMemory&) = delete;

  executorch::runtime::HierarchicalAllocator* allocator() { return &allocator_; }

 private:
  std::vector<executorch::runtime::Span<uint8_t>> buffers_;
  executorch::runtime::HierarchicalAllocator allocator_;
};

}  // namespace t5g2
