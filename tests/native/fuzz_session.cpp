// A saved session: loading it must succeed or fail with an Error, and what loads must be saved as it was.

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "runtime/engine/error.h"
#include "runtime/engine/session_file.h"
#include "runtime/engine/sha256.h"

namespace {

t5g2::Manifest manifest() {
  t5g2::Manifest m{};
  m.text_sha256 = std::string(64, 'a');
  m.max_source = 50;
  m.hidden_size = 4;
  m.layers = 2;
  m.kv_heads = 1;
  m.head_dim = 4;
  m.cache_element_bytes = 2;
  return m;
}

}  // namespace

// The first byte: whether the hash at the end is made right, so that changes get past it, and the magic too.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (!size) return 0;
  std::vector<uint8_t> content(data + 1, data + size);
  if (data[0] % 4 && content.size() > 72 + 32) {
    std::memcpy(content.data(), "t5g2-src\1\0\0\0\0\0\0\0", 16);
    std::memset(content.data() + 16, 0xaa, 32);
    const auto digest = t5g2::sha256({content.data(), content.size() - 32});
    std::memcpy(content.data() + content.size() - 32, digest.data(), 32);
  }
  const int file = memfd_create("session", MFD_CLOEXEC);
  if (file < 0 || write(file, content.data(), content.size()) != ssize_t(content.size())) std::abort();
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  try {
    const t5g2::EncodedSource source = t5g2::load_source(manifest(), path);
    if (source.ids.empty() || source.ids.size() > 50 || source.states.size() != 4 * source.ids.size()) std::abort();
  } catch (const t5g2::Error& error) {
    if (std::string(error.what()).find(path) != 0) std::abort();
  }
  close(file);
  return 0;
}
