// An opened bundle, and what it encodes and decodes. May be used from several threads: program calls take turns.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bundle.h"
#include "given_programs.h"
#include "pages.h"
#include "program.h"
#include "t5g2.h"
#include "text_program.h"
#include "tokenizer.h"

namespace t5g2 {

struct EngineOptions {
  int32_t threads = 0;  // 0: as many as ExecuTorch finds useful
  std::string cache_folder = default_cache_folder();
  const t5g2_programs* programs = nullptr;  // of a bundle of another runtime; null: ExecuTorch's
};

class Engine {
 public:
  // Throws Error.
  Engine(const std::string& folder, const EngineOptions& options);

  const Manifest& manifest() const { return bundle_.manifest; }
  // Throws Error for a bundle that has none.
  const Tokenizer& tokenizer() const;
  bool has_tokenizer() const { return tokenizer_.has_value(); }
  // Ids that an answer should not hold: the vocabulary's unused ones and the image tokens.
  const std::vector<int32_t>& unused_ids() const { return unused_ids_; }
  double read_seconds() const { return read_seconds_; }
  double load_seconds() const { return load_seconds_; }

  // Ids of a source text for that many pictures. Throws Error.
  std::vector<int32_t> source_ids(std::string_view text, size_t images) const;

  // Runs the vision tower for each picture and the encoder once. pixels: [images, 3, side, side], normalised. Throws Error for
  // ids or pictures that do not fit.
  EncodedSource encode(std::vector<int32_t> ids, const float* pixels, size_t images);

  // Throws Error where ids are none, too many or outside the vocabulary; `what` and `limit_option` are for its message.
  void check_ids(std::span<const int32_t> ids, const char* what, int32_t limit, const char* limit_option) const;

  Pages new_cache() const { return Pages(manifest().self_cache_bytes()); }

  // Called with the logits [rows, vocab_size] after ids[first], ids[first + 1], …; see ReadLogits. False: stop there.
  using ReadRows = std::function<bool(size_t first, std::span<float> logits)>;
  // Feeds target ids, of which the first is at `position`, in as many steps as they take. False where `read` stopped it.
  bool feed(const EncodedSource& source, Pages& cache, std::span<const int32_t> ids, size_t position, const ReadRows& read);

 private:
  std::vector<float> image_features(const std::vector<int32_t>& ids, const float* pixels, size_t images);
  void run_vision(float* pixels, std::span<float> features);
  void check_images(std::span<const int32_t> ids, size_t images) const;

  Bundle bundle_;
  std::optional<Tokenizer> tokenizer_;
  std::vector<int32_t> unused_ids_;
  std::unique_ptr<TextProgram> text_;
  std::unique_ptr<Program> vision_;
  std::optional<GivenPrograms> given_;  // instead of both, where the caller runs the programs
  std::mutex running_;
  double read_seconds_ = 0, load_seconds_ = 0;
};

}  // namespace t5g2
