#include "file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "error.h"

namespace t5g2 {
namespace {

[[noreturn]] void fail_with(const std::string& path, const char* what, int error) {
  const char* remedy = error == ENOENT || error == ENOTDIR ? "check the path"
                       : error == EACCES || error == EPERM ? "check the permissions"
                       : error == ENOSPC || error == EDQUOT || error == EROFS || error == EFBIG
                           ? "free some space or write elsewhere"
                           : "check the disk";
  fail(path, ": cannot ", what, " (", std::strerror(error), "); ", remedy);
}

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }
  int release() { return std::exchange(value_, -1); }

 private:
  int value_;
};

// The size of a regular file.
size_t size_of(int file, const std::string& path) {
  struct stat status;
  if (fstat(file, &status)) fail_with(path, "read it", errno);
  if (!S_ISREG(status.st_mode)) fail(path, ": not a regular file; check the path");
  return size_t(status.st_size);
}

}  // namespace

MappedFile::MappedFile(const std::string& path, [[maybe_unused]] bool huge_pages) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) fail_with(path, "read it", errno);
  const size_t size = size_of(file.get(), path);
  if (!size) return;
  void* memory = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (memory == MAP_FAILED) fail_with(path, "map it", errno);
  data_ = static_cast<const uint8_t*>(memory);
  size_ = size;
#ifdef MADV_HUGEPAGE
  if (huge_pages) madvise(memory, size, MADV_HUGEPAGE);
#endif
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<uint8_t*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

std::string read_file(const std::string& path, size_t limit) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) fail_with(path, "read it", errno);
  const size_t size = size_of(file.get(), path);
  if (size > limit) fail(path, ": ", size, " bytes, and at most ", limit, " are taken; check that it is the right file");
  std::string text(size, '\0');
  for (size_t at = 0; at < size;) {
    const ssize_t count = read(file.get(), text.data() + at, size - at);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_with(path, "read it", errno);
    if (count == 0) fail(path, ": it became shorter while it was read; try again");
    at += size_t(count);
  }
  return text;
}

void FileWriter::write(const void* data, size_t size) {
  const char* bytes = static_cast<const char*>(data);
  while (size) {
    const ssize_t count = ::write(descriptor_, bytes, size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_with(path_, "write it", errno);
    bytes += count;
    size -= size_t(count);
  }
}

void write_atomically(const std::string& path, const std::function<void(FileWriter&)>& body) {
  struct stat status;
  if (!stat(path.c_str(), &status) && !S_ISREG(status.st_mode)) fail(path, ": not a regular file; choose another name");
  std::string temporary = path + ".XXXXXX.part";
  Descriptor file(mkostemps(temporary.data(), 5, O_CLOEXEC));
  if (file.get() < 0) fail_with(path, "write it", errno);
  try {
    FileWriter writer(file.get(), path);
    body(writer);
    if (fchmod(file.get(), 0644) || fsync(file.get())) fail_with(path, "write it", errno);
    if (close(file.release())) fail_with(path, "write it", errno);
    if (rename(temporary.c_str(), path.c_str())) fail_with(path, "write it", errno);
  } catch (...) {
    unlink(temporary.c_str());
    throw;
  }
}

}  // namespace t5g2
