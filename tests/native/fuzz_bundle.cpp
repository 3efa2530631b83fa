// A manifest, and the folder that it describes: opening it must succeed or fail with an Error.

#include <stdlib.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "runtime/engine/bundle.h"
#include "runtime/engine/error.h"
#include "runtime/engine/sha256.h"

namespace {

// A folder of this process, with a manifest and two small files.
const std::string& folder() {
  static const std::string path = [] {
    std::string name = (std::filesystem::temp_directory_path() / "t5g2-fuzz-XXXXXX").string();
    if (!mkdtemp(name.data())) std::abort();
    std::ofstream(name + "/text.pte") << "text program";
    std::ofstream(name + "/tokenizer.bin") << "tokenizer";
    static const std::string kept = name;
    std::atexit([] { std::filesystem::remove_all(kept); });
    return name;
  }();
  return path;
}

// Puts the right hash in, so that changes get past it: the first byte says whether.
std::string sealed(std::string text) {
  const std::string key = "\"manifest_sha256\": \"";
  const size_t at = text.find(key);
  if (at == text.npos || at + key.size() + 64 > text.size()) return text;
  text.replace(at + key.size(), 64, std::string(64, '0'));
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  return text.replace(at + key.size(), 64, t5g2::hexadecimal(t5g2::sha256({bytes, text.size()})));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (!size) return 0;
  std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 4) text = sealed(std::move(text));
  std::ofstream(folder() + "/manifest.json", std::ios::trunc) << text;
  try {
    const t5g2::Bundle bundle = t5g2::open_bundle(folder(), data[0] % 2 ? folder() + "/cache" : "");
    const t5g2::Manifest& m = bundle.manifest;
    if (m.self_cache_bytes() / m.cache_element_bytes == 0 || m.cross_bytes(1) == 0) std::abort();
  } catch (const t5g2::Error& error) {
    if (std::string(error.what()).find(folder()) != 0) std::abort();  // the message names the bundle
  }
  return 0;
}
