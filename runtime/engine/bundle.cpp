#include "bundle.h"

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "error.h"
#include "file.h"
#include "sha256.h"

extern "C" const char* t5g2_kernels();  // of the operator library

namespace t5g2 {
namespace {

using Json = nlohmann::json;

constexpr int kFormatVersion = 3;
constexpr size_t kMostManifestBytes = size_t(16) << 20;
constexpr const char* kManifest = "/manifest.json";
constexpr const char* kExportAgain = "; export the bundle again";
constexpr size_t kHashLength = 64;  // hexadecimal digits

std::string hash_of(const std::string& text) {
  return hexadecimal(sha256({reinterpret_cast<const uint8_t*>(text.data()), text.size()}));
}

// The manifest's own hash is that of its text with zeros in the hash's place.
bool sealed(std::string text, const std::string& hash) {
  if (hash.size() != kHashLength) return false;
  for (size_t at = text.find(hash); at != std::string::npos; at = text.find(hash, at + kHashLength)) {
    text.replace(at, kHashLength, kHashLength, '0');
  }
  return hash_of(text) == hash;
}

// A number in [low, high]; what is outside damaged the file or is meant for another engine.
int32_t integer(const Json& value, int64_t low, int64_t high) {
  const int64_t number = value.get<int64_t>();
  if (!value.is_number_integer() || number < low || number > high) throw std::out_of_range(value.dump());
  return int32_t(number);
}

std::optional<int32_t> token(const Json& value, int32_t vocab_size) {
  if (value.is_null()) return std::nullopt;
  return integer(value, 0, vocab_size - 1);
}

Backend backend(const std::string& found) {
  for (const Backend backend : {Backend::kNative, Backend::kXnnpack, Backend::kLiteRt}) {
    if (found == name(backend)) return backend;
  }
  throw std::out_of_range(found);
}

std::array<float, 3> channels(const Json& value) {
  std::array<float, 3> out;
  for (size_t c = 0; c < 3; ++c) out[c] = value.is_array() ? value.at(c).get<float>() : value.get<float>();
  for (float x : out) {
    if (!std::isfinite(x)) throw std::out_of_range("not finite");
  }
  return out;
}

void read_config(const Json& json, Manifest& m) {
  const Json& config = json.at("model").at("config");
  const Json& decoder = config.at("decoder");
  constexpr int64_t kMost = 1 << 24;
  m.vocab_size = integer(decoder.at("vocab_size"), 1, kMost);
  m.layers = integer(decoder.at("num_layers"), 1, 1 << 12);
  m.kv_heads = integer(decoder.at("num_kv_heads"), 1, 1 << 12);
  m.head_dim = integer(decoder.at("head_dim"), 1, 1 << 16);
  m.hidden_size = integer(config.at("encoder").at("hidden_size"), 1, kMost);
  const Json& limits = json.at("limits");
  m.max_source = integer(limits.at("max_source"), 1, kMost);
  m.max_target = integer(limits.at("max_target"), 1, kMost);
  m.max_rows = integer(limits.at("max_rows"), 1, kMost);
  for (const Json& slots : json.at("cache_slots")) m.cache_slots.push_back(integer(slots, 1, kMost));
  if (m.cache_slots.size() != size_t(m.layers)) throw std::out_of_range("cache_slots");
  const std::string dtype = json.at("quantization").at("kv_cache").get<std::string>();
  if (dtype != "float16" && dtype != "float32") throw std::out_of_range(dtype);
  m.cache_element_bytes = dtype == "float16" ? 2 : 4;
  if (m.backend != Backend::kLiteRt) return;
  for (const Json& bucket : json.at("source_buckets")) {
    m.source_buckets.push_back(integer(bucket, m.source_buckets.empty() ? 1 : m.source_buckets.back() + 1, m.max_source));
  }
  if (m.source_buckets.empty() || m.source_buckets.back() != m.max_source || m.max_rows != 1) {
    throw std::out_of_range("source_buckets");
  }
}

void read_tokens(const Json& json, Manifest& m) {
  const Json& tokens = json.at("tokens");
  m.tokens.bos = integer(tokens.at("bos"), 0, m.vocab_size - 1);
  m.tokens.pad = integer(tokens.at("pad"), 0, m.vocab_size - 1);
  for (const Json& id : tokens.at("eos")) m.tokens.eos.push_back(integer(id, 0, m.vocab_size - 1));
  if (m.tokens.eos.empty()) throw std::out_of_range("eos");
  m.tokens.boi = token(tokens.at("boi"), m.vocab_size);
  m.tokens.eoi = token(tokens.at("eoi"), m.vocab_size);
  m.tokens.image = token(tokens.at("image"), m.vocab_size);
  m.tokens.tokens_per_image = integer(tokens.at("tokens_per_image"), 1, 1 << 20);
  const Json& image = json.at("image");
  if (image.is_null()) return;
  m.image = ImageSettings{integer(image.at("side"), 1, 1 << 14), channels(image.at("mean")), channels(image.at("std"))};
  for (float x : m.image->std) {
    if (x == 0) throw std::out_of_range("std");
  }
}

// Which file it is and that nobody wrote to it since, as far as the system knows.
std::string identity(const std::string& path) {
  struct stat s;
  if (stat(path.c_str(), &s)) return "";
  const auto time = [](const timespec& t) { return join(t.tv_sec, '.', t.tv_nsec); };
  return join(s.st_dev, ' ', s.st_ino, ' ', s.st_size, ' ', time(s.st_mtim), ' ', time(s.st_ctim));
}

// Remembers by one small file for each bundle that its files had the right hashes.
class Verified {
 public:
  // now: names and identities of the bundle's files as they are.
  Verified(const std::string& cache_folder, const std::string& folder, std::string now) : now_(std::move(now)) {
    if (cache_folder.empty()) return;
    std::error_code none;
    const std::string place = std::filesystem::weakly_canonical(folder, none).string();
    path_ = cache_folder + "/verified/" + hash_of(place);
  }

  bool holds() const {
    if (path_.empty()) return false;
    try {
      return read_file(path_, kMostManifestBytes) == now_;
    } catch (const Error&) {
      return false;
    }
  }

  void remember() const {
    if (path_.empty()) return;
    std::error_code none;
    std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), none);
    try {
      write_atomically(path_, [&](FileWriter& file) { file.write(now_.data(), now_.size()); });
    } catch (const Error&) {  // it will be hashed again, which is only slow
    }
  }

 private:
  std::string path_, now_;
};

}  // namespace

size_t Manifest::self_cache_bytes() const {
  size_t slots = 0;
  for (int32_t n : cache_slots) slots += size_t(n);
  return 2 * entries(slots) * cache_element_bytes;
}

size_t Manifest::cross_bytes(size_t source) const {
  size_t positions = source;
  if (!source_buckets.empty()) {
    const auto bucket = std::lower_bound(source_buckets.begin(), source_buckets.end(), int32_t(source));
    if (bucket != source_buckets.end()) positions = size_t(*bucket);
  }
  return 2 * size_t(layers) * entries(positions) * cache_element_bytes;
}

Manifest read_manifest(const std::string& text, const std::string& path) {
  try {
    const Json json = Json::parse(text);
    if (json.at("format") != "t5g2-bundle") throw std::out_of_range("format");
    const Json& version = json.at("format_version");
    if (version != kFormatVersion) {
      const bool older = version.is_number_integer() && version < kFormatVersion;
      fail(path, ": bundle format ", version.dump(), ", and this t5g2 reads ", kFormatVersion,
           older ? kExportAgain : "; upgrade t5g2 or export the bundle again");
    }
    if (!sealed(text, json.at("manifest_sha256").get<std::string>())) {
      fail(path, ": its content does not match its own hash; it was altered", kExportAgain);
    }
    Manifest m;
    m.text = text;
    const Json& files = json.at("files");
    for (const auto& [name, entry] : files.items()) {
      if (name.find('/') != std::string::npos) throw std::out_of_range(name);
      m.files.push_back({name, entry.at("size").get<uint64_t>(), entry.at("sha256").get<std::string>()});
    }
    m.backend = backend(json.at("backend").get<std::string>());
    const std::string type = m.backend == Backend::kLiteRt ? ".tflite" : ".pte";
    m.text_sha256 = files.at("text" + type).at("sha256").get<std::string>();
    m.has_vision = files.contains("vision" + type);
    m.has_tokenizer = files.contains("tokenizer.bin");
    read_config(json, m);
    read_tokens(json, m);
    if (m.has_vision && (!m.image || !m.tokens.image)) throw std::out_of_range("image");
    return m;
  } catch (const std::exception& error) {
    if (dynamic_cast<const Error*>(&error)) throw;
    fail(path, ": not a bundle manifest, or a damaged one", kExportAgain);
  }
}

Bundle open_bundle(const std::string& folder, const std::string& cache_folder) {
  struct stat status;
  if (stat(folder.c_str(), &status) || !S_ISDIR(status.st_mode)) {
    fail(folder, ": no such bundle; give a folder made by t5g2-export");
  }
  const std::string path = folder + kManifest;
  if (stat(path.c_str(), &status)) fail(folder, ": not a bundle (no manifest.json); give a folder made by t5g2-export");
  const std::string text = read_file(path, kMostManifestBytes);
  Bundle bundle{folder, read_manifest(text, path)};

  std::string now;
  for (const auto& [name, size, hash] : bundle.manifest.files) {
    const std::string file = bundle.file(name);
    if (stat(file.c_str(), &status) || !S_ISREG(status.st_mode)) fail(file, ": missing from the bundle", kExportAgain);
    if (uint64_t(status.st_size) != size) {
      fail(file, ": ", status.st_size, " bytes where ", size, " are expected", kExportAgain);
    }
    now += name + " " + hash + " " + identity(file) + "\n";
  }
  const Verified verified(cache_folder, folder, now);
  if (verified.holds()) return bundle;
  for (const auto& [name, size, hash] : bundle.manifest.files) {
    if (hexadecimal(sha256(MappedFile(bundle.file(name), true).bytes())) != hash) {
      fail(bundle.file(name), ": sha256 does not match the manifest, the file was altered", kExportAgain);
    }
  }
  verified.remember();
  return bundle;
}

const char* name(Backend backend) {
  switch (backend) {
    case Backend::kNative: return "native";
    case Backend::kXnnpack: return "xnnpack";
    case Backend::kLiteRt: return "litert";
  }
  return "";
}

const char* kernels(Backend backend) { return backend == Backend::kNative ? t5g2_kernels() : name(backend); }

std::string default_cache_folder() {
  if (const char* folder = std::getenv("XDG_CACHE_HOME"); folder && *folder == '/') return std::string(folder) + "/t5g2";
  if (const char* home = std::getenv("HOME"); home && *home == '/') return std::string(home) + "/.cache/t5g2";
  return "";
}

}  // namespace t5g2
