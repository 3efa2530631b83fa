// The memory that a method's plan asks for.
//
// A program is planned for its longest source; ExecuTorch's own buffers are zeroed when a method is loaded, which makes all
// of that resident at once. Pages cost what the source at hand uses.

#pragma once

#include <cstdint>
#include <vector>

#include <executorch/runtime/core/hierarchical_allocator.h>
#include <executorch/runtime/core/span.h>
#include <executorch/runtime/executor/method_meta.h>

#include "pages.h"

namespace t5g2 {

class PlannedMemory {
 public:
  // Throws std::bad_alloc where the system refuses.
  explicit PlannedMemory(const executorch::runtime::MethodMeta& meta) : allocator_({}) {
    for (size_t i = 0; i < meta.num_memory_planned_buffers(); ++i) {
      pages_.emplace_back(size_t(meta.memory_planned_buffer_size(i).get()));
      buffers_.emplace_back(pages_.back().data(), pages_.back().size());
    }
    allocator_ = executorch::runtime::HierarchicalAllocator({buffers_.data(), buffers_.size()});
  }
  PlannedMemory(const PlannedMemory&) = delete;
  PlannedMemory& operator=(const PlannedMemory&) = delete;

  executorch::runtime::HierarchicalAllocator* allocator() { return &allocator_; }

 private:
  std::vector<Pages> pages_;
  std::vector<executorch::runtime::Span<uint8_t>> buffers_;
  executorch::runtime::HierarchicalAllocator allocator_;
};

}  // namespace t5g2
