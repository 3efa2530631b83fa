// A bundle's folder: what its manifest says, and that its files are what the manifest says.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "image.h"
#include "prompt.h"

namespace t5g2 {

struct BundleFile {
  std::string name;
  uint64_t size;       // in bytes
  std::string sha256;  // in hexadecimal
};

// Whose programs a bundle holds.
enum class Backend {
  kNative,   // ExecuTorch's, which call our own operators
  kXnnpack,  // ExecuTorch's, of stock operators only
  kLiteRt,   // LiteRT's, which the caller runs: see t5g2_programs
};

const char* name(Backend backend);  // as the manifest has it

// The kernels that its programs run on: of the operator library those in use, else the backend's own by its name.
const char* kernels(Backend backend);

struct Manifest {
  std::string text;           // manifest.json as it is
  std::vector<BundleFile> files;
  std::string text_sha256;    // of the text program, in hexadecimal: which model, in which precision
  Backend backend;
  bool has_vision, has_tokenizer;
  int32_t max_source, max_target, max_rows;  // in tokens; rows: of one decoder step
  int32_t vocab_size, hidden_size;           // hidden_size: of the encoder states
  int32_t layers, kv_heads, head_dim;        // of the decoder
  std::vector<int32_t> cache_slots;          // of each decoder layer's self cache
  size_t cache_element_bytes;                // 2: float16, 4: float32
  std::vector<int32_t> source_buckets;       // LiteRT: the lengths that sources are padded to, shortest first; else none
  SpecialTokens tokens;
  std::optional<ImageSettings> image;

  // Elements of one decoder layer's keys, or values, over `positions`.
  size_t entries(size_t positions) const { return positions * size_t(kv_heads) * size_t(head_dim); }
  size_t self_cache_bytes() const;
  // Of the cross K/V of a source of so many ids.
  size_t cross_bytes(size_t source) const;
};

struct Bundle {
  std::string folder;
  Manifest manifest;

  std::string file(const std::string& name) const { return folder + "/" + name; }
};

// Reads the manifest and checks the size and the sha256 of every file it names. cache_folder: where it is remembered which
// files were hashed, so that an unchanged file is hashed once; empty: nowhere. Throws Error naming what is missing,
// truncated, altered, or of another format.
Bundle open_bundle(const std::string& folder, const std::string& cache_folder);

// Reads a manifest's text; `path` names it in errors.
Manifest read_manifest(const std::string& text, const std::string& path);

// $XDG_CACHE_HOME/t5g2 or ~/.cache/t5g2; empty where neither is known.
std::string default_cache_folder();

}  // namespace t5g2
