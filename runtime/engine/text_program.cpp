#include "text_program.h"

#include <cstring>

#include <executorch/extension/tensor/tensor.h>

#include "error.h"

namespace t5g2 {
namespace {

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::aten::Tensor;
using executorch::extension::TensorPtr;
using executorch::runtime::EValue;
using executorch::runtime::EventTracer;

// Tensors over memory of ours, kept for the time of a call.
class Inputs {
 public:
  void add(void* data, std::vector<SizesType> shape, ScalarType type) {
    tensors_.push_back(executorch::extension::from_blob(data, std::move(shape), type));
    values_.emplace_back(*tensors_.back());
  }
  const std::vector<EValue>& values() const { return values_; }

 private:
  std::vector<TensorPtr> tensors_;
  std::vector<EValue> values_;
};

// What both backends of ExecuTorch do alike. cross_outputs: how many outputs of the encoder, of one size, make the cross K/V.
class ByManifest : public TextProgram {
 public:
  ByManifest(const Bundle& bundle, size_t cross_outputs, EventTracer* tracer)
      : manifest_(bundle.manifest),
        path_(bundle.file("text.pte")),
        program_(path_, {"encoder", "decoder_step"}, tracer),
        type_(manifest_.cache_element_bytes == 2 ? ScalarType::Half : ScalarType::Float),
        cross_outputs_(cross_outputs) {}

  EncodedSource encode(std::vector<int32_t> ids, float* features) override {
    std::vector<int64_t> wide(ids.begin(), ids.end());
    const size_t n = ids.size();
    Inputs inputs;
    inputs.add(wide.data(), {SizesType(n)}, ScalarType::Long);
    if (features) inputs.add(features, {SizesType(n), manifest_.hidden_size}, ScalarType::Float);
    const auto outputs = program_.run("encoder", inputs.values());
    EncodedSource source{std::move(ids), Pages(manifest_.cross_bytes(n), true),
                         std::vector<float>(n * size_t(manifest_.hidden_size))};
    const size_t bytes = source.cross.size() / cross_outputs_;
    for (size_t i = 0; i < cross_outputs_; ++i) copy(outputs, i, source.cross.data() + i * bytes, bytes);
    copy(outputs, cross_outputs_, source.states.data(), source.states.size() * sizeof(float));
    return source;
  }

 protected:
  // Copies output `index` to `to`.
  void copy(const std::vector<EValue>& outputs, size_t index, void* to, size_t bytes) const {
    if (index >= outputs.size() || !outputs[index].isTensor() || outputs[index].toTensor().nbytes() != bytes) {
      fail(path_, ": its outputs are not those of the manifest; export the bundle again");
    }
    std::memcpy(to, outputs[index].toTensor().const_data_ptr(), bytes);
  }

  std::span<float> logits(const std::vector<EValue>& outputs, size_t rows) const {
    const size_t count = rows * size_t(manifest_.vocab_size);
    if (outputs.empty() || !outputs[0].isTensor() || outputs[0].toTensor().nbytes() != count * sizeof(float)) {
      fail(path_, ": its logits are not those of the manifest; export the bundle again");
    }
    return {outputs[0].toTensor().mutable_data_ptr<float>(), count};
  }

  const Manifest manifest_;
  const std::string path_;
  Program program_;
  const ScalarType type_;  // of caches

 private:
  const size_t cross_outputs_;
};

// Programs over our own operators. cross: [layers, 2, kv heads, source, head_dim]; the decoder step writes the cache in place.
class NativeText : public ByManifest {
 public:
  NativeText(const Bundle& bundle, EventTracer* tracer) : ByManifest(bundle, 1, tracer) {}

  void step(const EncodedSource& source, Pages& cache, std::span<const int32_t> ids, int64_t position,
            const ReadLogits& read) override {
    std::vector<int64_t> wide(ids.begin(), ids.end());
    const Manifest& m = manifest_;
    Inputs inputs;
    inputs.add(wide.data(), {SizesType(ids.size())}, ScalarType::Long);
    inputs.add(&position, {1}, ScalarType::Long);
    inputs.add(cache.data(), {SizesType(cache.size() / m.cache_element_bytes)}, type_);
    inputs.add(const_cast<uint8_t*>(source.cross.data()),  // an input, which the program only reads
               {m.layers, 2, m.kv_heads, SizesType(source.ids.size()), m.head_dim}, type_);
    const auto outputs = program_.run("decoder_step", inputs.values());
    read(logits(outputs, ids.size()));
  }
};

// Programs of stock operators, which take the cache and return the new keys and values. Both caches: all layers' keys, one
// [kv heads, head_dim, positions] each, then all layers' values, one [kv heads, positions, head_dim] each.
class StockText : public ByManifest {
 public:
  StockText(const Bundle& bundle, EventTracer* tracer) : ByManifest(bundle, 2 * size_t(bundle.manifest.layers), tracer) {}

  void step(const EncodedSource& source, Pages& cache, std::span<const int32_t> ids, int64_t position,
            const ReadLogits& read) override {
    std::vector<int64_t> wide(ids.begin(), ids.end());
    Inputs inputs;
    inputs.add(wide.data(), {SizesType(ids.size())}, ScalarType::Long);
    inputs.add(&position, {1}, ScalarType::Long);
    add(inputs, reinterpret_cast<float*>(cache.data()), manifest_.cache_slots);
    const std::vector<int32_t> lengths(size_t(manifest_.layers), int32_t(source.ids.size()));
    add(inputs, const_cast<float*>(reinterpret_cast<const float*>(source.cross.data())), lengths);
    const auto outputs = program_.run("decoder_step", inputs.values());
    store(outputs, reinterpret_cast<float*>(cache.data()), size_t(position), ids.size());
    read(logits(outputs, ids.size()));
  }

 private:
  void add(Inputs& inputs, float* data, const std::vector<int32_t>& lengths) const {
    for (const bool keys : {true, false}) {
      for (const int32_t n : lengths) {
        const SizesType d = manifest_.head_dim;
        inputs.add(data, {manifest_.kv_heads, keys ? d : SizesType(n), keys ? SizesType(n) : d}, ScalarType::Float);
        data += manifest_.entries(size_t(n));
      }
    }
  }

  // Writes the new rows into the rings: position p is in slot p mod slots.
  void store(const std::vector<EValue>& outputs, float* cache, size_t position, size_t rows) const {
    const size_t layers = size_t(manifest_.layers), heads = size_t(manifest_.kv_heads), d = size_t(manifest_.head_dim);
    std::vector<float> rows_of_layer(manifest_.entries(rows));
    for (size_t i = 0; i < 2 * layers; ++i) {
      const size_t slots = size_t(manifest_.cache_slots[i % layers]);
      copy(outputs, 1 + i, rows_of_layer.data(), rows_of_layer.size() * sizeof(float));
      const float* x = rows_of_layer.data();
      for (size_t h = 0; h < heads; ++h, x += rows * d) {
        for (size_t r = 0; r < rows; ++r) {
          const size_t slot = (position + r) % slots;
          for (size_t k = 0; k < d; ++k) {
            if (i < layers) {
              cache[(h * d + k) * slots + slot] = x[k * rows + r];
            } else {
              cache[(h * slots + slot) * d + k] = x[r * d + k];
            }
          }
        }
      }
      cache += manifest_.entries(slots);
    }
  }
};

}  // namespace

std::unique_ptr<TextProgram> TextProgram::open(const Bundle& bundle, EventTracer* tracer) {
  if (bundle.manifest.backend == Backend::kLiteRt) {
    fail(bundle.folder, ": its programs are LiteRT's, which run in Python: t5g2.load, after pip install 't5g2[litert]'; or export "
         "it with --backend native");
  }
  if (bundle.manifest.backend == Backend::kNative) return std::make_unique<NativeText>(bundle, tracer);
  load_library("libexecutorch_kernels_optimized.so");
  load_library("libexecutorch_backend_xnnpack.so");
  return std::make_unique<StockText>(bundle, tracer);
}

}  // namespace t5g2
