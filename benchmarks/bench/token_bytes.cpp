#include "token_bytes.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "runtime/kernels/packed.h"

namespace t5g2::bench {

std::optional<int64_t> bytes_per_token(const Manifest& manifest, int64_t source, int64_t depth) {
  if (manifest.backend != Backend::kNative) return std::nullopt;
  const auto json = nlohmann::json::parse(manifest.text);
  const auto& decoder = json.at("model").at("config").at("decoder");
  const auto& scheme = json.at("quantization").at("text");
  const int64_t bits = scheme.at("bits");
  const int64_t group_size = scheme.at("group_size").is_null() ? 0 : scheme.at("group_size").get<int64_t>();
  const auto matrix = [&](int64_t rows, int64_t columns) { return Packed{nullptr, rows, columns, bits, group_size}.bytes(); };

  const int64_t hidden = decoder.at("hidden_size"), ff = decoder.at("intermediate_size");
  const int64_t heads = decoder.at("num_heads").get<int64_t>() * manifest.head_dim;
  const int64_t kv = int64_t(manifest.kv_heads) * manifest.head_dim;
  const int64_t layer = matrix(heads + 2 * kv, hidden) + matrix(hidden, heads) + matrix((ff + 15) / 16 * 32, hidden) +
                        matrix(hidden, ff);
  int64_t seen = manifest.layers * source;  // positions, over all layers
  for (const auto& type : decoder.at("layer_types")) {
    seen += type == "sliding_attention" ? std::min(depth + 1, decoder.at("sliding_window").get<int64_t>()) : depth + 1;
  }
  return manifest.layers * layer + matrix(manifest.vocab_size, hidden) + seen * 2 * kv * int64_t(manifest.cache_element_bytes);
}

}  // namespace t5g2::bench
