// Zeroed memory that the system commits page by page as it is first written.

#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace t5g2 {

class Pages {
 public:
  Pages() = default;
  // huge_pages: for memory that will be written all over and read often; the system then commits megabytes at a time.
  // Throws std::bad_alloc where the system refuses.
  explicit Pages(size_t bytes, [[maybe_unused]] bool huge_pages = false) : size_(bytes) {
    if (!bytes) return;
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<uint8_t*>(memory);
#ifdef MADV_HUGEPAGE
    if (huge_pages) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  }
  Pages(Pages&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Pages& operator=(Pages&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Pages() {
    if (data_) munmap(data_, size_);
  }

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace t5g2
