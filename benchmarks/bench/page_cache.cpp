#include "page_cache.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "runtime/engine/file.h"

namespace t5g2::bench {
namespace {

// Bytes of a mapped file that are in the cache.
size_t cached(std::span<const uint8_t> bytes) {
  const auto page = size_t(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> present((bytes.size() + page - 1) / page);
  if (present.empty() || mincore(const_cast<uint8_t*>(bytes.data()), bytes.size(), present.data())) return 0;
  return page * size_t(std::count_if(present.begin(), present.end(), [](unsigned char flags) { return flags & 1; }));
}

}  // namespace

void warm_up(const std::vector<std::string>& files) {
  std::vector<char> buffer(size_t(1) << 20);
  for (const std::string& file : files) {
    const int descriptor = open(file.c_str(), O_RDONLY | O_CLOEXEC);
    while (descriptor >= 0 && read(descriptor, buffer.data(), buffer.size()) > 0) {
    }
    if (descriptor >= 0) close(descriptor);
  }
}

bool drop(const std::vector<std::string>& files) {
  size_t left = 0, whole = 0;
  for (const std::string& file : files) {
    const int descriptor = open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return false;
    fsync(descriptor);  // pages not yet written would stay
    posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
    close(descriptor);
    const MappedFile mapped(file);
    left += cached(mapped.bytes());
    whole += mapped.bytes().size();
  }
  return left <= whole / 20;
}

}  // namespace t5g2::bench
