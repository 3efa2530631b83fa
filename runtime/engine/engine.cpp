#include "engine.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include <executorch/extension/tensor/tensor.h>

#include "error.h"

namespace t5g2 {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

constexpr const char* kVisionProgram = "vision.pte";
constexpr const char* kTokenizer = "tokenizer.bin";

}  // namespace

Engine::Engine(const std::string& folder, const EngineOptions& options) {
  if (options.threads < 0 || options.threads > 256) {
    misuse("threads: ", options.threads, "; must be 1 to 256, or 0 for the default");
  }
  auto start = Clock::now();
  bundle_ = open_bundle(folder, options.cache_folder);
  read_seconds_ = seconds_since(start);
  start = Clock::now();
  if (options.threads) set_threads(options.threads);
  const Manifest& m = manifest();
  if (m.has_tokenizer) {
    tokenizer_.emplace(bundle_.file(kTokenizer));
    check_special_tokens(*tokenizer_, m.tokens, bundle_.file(kTokenizer));
    for (int32_t id : suppressed_ids(*tokenizer_, m.tokens)) {
      if (id < m.vocab_size) unused_ids_.push_back(id);
    }
  }
  if (options.programs) {
    if (m.backend != Backend::kLiteRt) misuse("programs: ", folder, " holds ExecuTorch's own, which need none; give NULL");
    given_.emplace(m, *options.programs);
    text_ = given_->text();
  } else {
    text_ = TextProgram::open(bundle_);
  }
  if (m.has_vision && !given_) vision_ = std::make_unique<Program>(bundle_.file(kVisionProgram), std::vector<std::string>{"vision"});
  load_seconds_ = seconds_since(start);
}

const Tokenizer& Engine::tokenizer() const {
  if (!tokenizer_) {
    fail(bundle_.folder, ": has no tokenizer (random weights), so it takes ids, not text; give source ids (t5g2-run --ids)");
  }
  return *tokenizer_;
}

std::vector<int32_t> Engine::source_ids(std::string_view text, size_t images) const {
  return t5g2::source_ids(tokenizer(), manifest().tokens, text, images);
}

void Engine::check_ids(std::span<const int32_t> ids, const char* what, int32_t limit, const char* limit_option) const {
  if (ids.empty()) fail(what, ": no tokens; give at least one");
  for (int32_t id : ids) {
    if (id < 0 || id >= manifest().vocab_size) {
      fail(what, ": id ", id, " is outside the vocabulary of ", manifest().vocab_size, "; use this model's tokenizer");
    }
  }
  if (ids.size() > size_t(limit)) {
    fail(what, ": ", ids.size(), " tokens, and this bundle takes ", limit, "; shorten it, or export with ", limit_option, " ",
         ids.size());
  }
}

void Engine::check_images(std::span<const int32_t> ids, size_t images) const {
  const Manifest& m = manifest();
  if (images && !m.has_vision) {
    fail(bundle_.folder, ": a bundle without vision cannot read images; export without --no-vision");
  }
  const size_t soft = m.tokens.image ? size_t(std::count(ids.begin(), ids.end(), *m.tokens.image)) : 0;
  const size_t per_image = size_t(m.tokens.tokens_per_image);
  if (soft != images * per_image) {
    fail("the source has ", double(soft) / double(per_image), " image blocks of ", per_image, " tokens and ", images,
         " images were given; give one image per block");
  }
}

EncodedSource Engine::encode(std::vector<int32_t> ids, const float* pixels, size_t images) {
  check_ids(ids, "the source", manifest().max_source, "--max-source");
  check_images(ids, images);
  std::vector<float> features = image_features(ids, pixels, images);
  const std::lock_guard lock(running_);
  return text_->encode(std::move(ids), features.empty() ? nullptr : features.data());
}

std::vector<float> Engine::image_features(const std::vector<int32_t>& ids, const float* pixels, size_t images) {
  const Manifest& m = manifest();
  if (!m.has_vision) return {};
  const size_t hidden = size_t(m.hidden_size), side = size_t(m.image->side);
  const size_t rows = size_t(m.tokens.tokens_per_image);
  std::vector<float> features(ids.size() * hidden);  // read at image tokens only
  std::vector<float> of_picture(rows * hidden);
  auto at = ids.begin();
  for (size_t i = 0; i < images; ++i) {
    float* picture = const_cast<float*>(pixels) + i * 3 * side * side;  // an input, which the program only reads
    run_vision(picture, of_picture);
    const float* feature = of_picture.data();
    for (size_t row = 0; row < rows; ++row, feature += hidden) {
      at = std::find(at, ids.end(), *m.tokens.image);
      std::memcpy(features.data() + size_t(at++ - ids.begin()) * hidden, feature, hidden * sizeof(float));
    }
  }
  return features;
}

// features: of one picture, [tokens_per_image, hidden_size].
void Engine::run_vision(float* pixels, std::span<float> features) {
  const std::lock_guard lock(running_);
  if (given_) return given_->vision(pixels, features.data());
  const int side = manifest().image->side;
  auto input = executorch::extension::from_blob(pixels, {1, 3, side, side}, executorch::aten::ScalarType::Float);
  const auto outputs = vision_->run("vision", {*input});
  if (outputs.size() != 1 || !outputs[0].isTensor() || outputs[0].toTensor().nbytes() != features.size_bytes()) {
    fail(bundle_.file(kVisionProgram), ": its features are not those of the manifest; export the bundle again");
  }
  std::memcpy(features.data(), outputs[0].toTensor().const_data_ptr<float>(), features.size_bytes());
}

bool Engine::feed(const EncodedSource& source, Pages& cache, std::span<const int32_t> ids, size_t position,
                  const ReadRows& read) {
  const size_t block = size_t(manifest().max_rows);
  for (size_t first = 0; first < ids.size(); first += block) {
    bool more = true;
    const std::lock_guard lock(running_);
    text_->step(source, cache, ids.subspan(first, std::min(block, ids.size() - first)), int64_t(position + first),
                [&](std::span<float> logits) { more = read(first, logits); });
    if (!more) return false;
  }
  return true;
}

}  // namespace t5g2
