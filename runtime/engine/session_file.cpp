#include "session_file.h"

#include <bit>
#include <cstring>

#include "error.h"
#include "file.h"
#include "sha256.h"

namespace t5g2 {
namespace {

static_assert(std::endian::native == std::endian::little, "files are written as memory holds them");

constexpr char kMagic[8] = {'t', '5', 'g', '2', '-', 's', 'r', 'c'};
constexpr uint32_t kVersion = 1;

struct Header {
  char magic[8];
  uint32_t version, zero;
  uint8_t model[32];
  uint64_t tokens, cross_bytes, hidden_size;
};
static_assert(sizeof(Header) == 72);

Header header_of(const Manifest& manifest, size_t tokens) {
  Header h{};
  std::memcpy(h.magic, kMagic, sizeof(kMagic));
  h.version = kVersion;
  for (size_t i = 0; i < sizeof(h.model) && 2 * i + 1 < manifest.text_sha256.size(); ++i) {
    h.model[i] = uint8_t(std::strtoul(manifest.text_sha256.substr(2 * i, 2).c_str(), nullptr, 16));
  }
  h.tokens = tokens;
  h.cross_bytes = manifest.cross_bytes(tokens);
  h.hidden_size = uint64_t(manifest.hidden_size);
  return h;
}

template <class T>
std::span<const uint8_t> bytes_of(const T* data, size_t count) {
  return {reinterpret_cast<const uint8_t*>(data), count * sizeof(T)};
}

}  // namespace

void save_source(const EncodedSource& source, const Manifest& manifest, const std::string& path) {
  const Header header = header_of(manifest, source.ids.size());
  write_atomically(path, [&](FileWriter& file) {
    Sha256 hash;
    for (const auto part : {bytes_of(&header, 1), bytes_of(source.ids.data(), source.ids.size()),
                            bytes_of(source.cross.data(), source.cross.size()),
                            bytes_of(source.states.data(), source.states.size())}) {
      hash.update(part);
      file.write(part.data(), part.size());
    }
    const auto digest = hash.digest();
    file.write(digest.data(), digest.size());
  });
}

EncodedSource load_source(const Manifest& manifest, const std::string& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  const char* again = "; encode the source again and save it";
  Header header;
  if (bytes.size() < sizeof(Header) || std::memcmp(bytes.data(), kMagic, sizeof(kMagic))) {
    fail(path, ": not a saved session; give a file that a session was saved to");
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.version != kVersion) {
    fail(path, ": saved session of format ", header.version, ", and this t5g2 reads ", kVersion, again);
  }
  if (header.tokens < 1 || header.tokens > uint64_t(manifest.max_source)) {
    fail(path, ": a source of ", header.tokens, " tokens, and this bundle takes ", manifest.max_source, again);
  }
  const Header expected = header_of(manifest, header.tokens);
  if (std::memcmp(header.model, expected.model, sizeof(header.model))) {
    fail(path, ": saved with another model or quantization", again);
  }
  const size_t n = header.tokens, states = n * size_t(manifest.hidden_size);
  const size_t size = sizeof(Header) + n * sizeof(int32_t) + expected.cross_bytes + states * sizeof(float);
  if (bytes.size() != size + sizeof(Sha256::Digest)) {
    fail(path, ": ", bytes.size(), " bytes where ", size + sizeof(Sha256::Digest), " are expected", again);
  }
  const auto digest = sha256(bytes.first(size));
  if (std::memcmp(&header, &expected, sizeof(Header)) || std::memcmp(bytes.data() + size, digest.data(), digest.size())) {
    fail(path, ": its content does not match its hash, the file was altered", again);
  }
  EncodedSource source{std::vector<int32_t>(n), Pages(expected.cross_bytes), std::vector<float>(states)};
  const uint8_t* at = bytes.data() + sizeof(Header);
  const auto take = [&at](void* to, size_t count) {
    std::memcpy(to, at, count);
    at += count;
  };
  take(source.ids.data(), n * sizeof(int32_t));
  take(source.cross.data(), source.cross.size());
  take(source.states.data(), states * sizeof(float));
  return source;
}

}  // namespace t5g2
