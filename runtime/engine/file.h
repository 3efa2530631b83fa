// Files read by mapping them, and files that appear whole or not at all.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace t5g2 {

// A regular file, mapped read-only. An empty one maps to nothing.
class MappedFile {
 public:
  // huge_pages: ask the system to read it in, and to map it, by pages of megabytes, as far as it can (Linux 6.16 and newer on
  // ext4, older on XFS): weights are then read without waiting for page tables. Costs nothing where it cannot.
  // Throws Error naming the file where it cannot be opened or mapped.
  explicit MappedFile(const std::string& path, bool huge_pages = false);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return {data_, size_}; }

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

std::string read_file(const std::string& path, size_t limit);

// The file that `write_atomically` is making.
class FileWriter {
 public:
  FileWriter(int descriptor, const std::string& path) : descriptor_(descriptor), path_(path) {}
  void write(const void* data, size_t size);  // throws Error, as for a full disk

 private:
  int descriptor_;
  const std::string& path_;
};

// Calls `body` with a temporary file beside `path`, which takes that name once all of it is on disk, and is removed where
// anything fails. Throws Error naming the file.
void write_atomically(const std::string& path, const std::function<void(FileWriter&)>& body);

}  // namespace t5g2
