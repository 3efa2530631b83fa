// Sources and targets to measure with: what ids they hold changes no figure.

#pragma once

#include <cstdint>
#include <vector>

#include "runtime/engine/bundle.h"

namespace t5g2::bench {

// Tokens that BOS and `images` pictures take at least.
inline int64_t least_source(const Manifest& manifest, int64_t images) {
  return 1 + images * (int64_t(manifest.tokens.tokens_per_image) + 2);
}

// BOS, the pictures' blocks, then ordinary tokens: `count` ids, at least as many as least_source.
inline std::vector<int32_t> source_ids(const Manifest& manifest, int64_t count, int64_t images) {
  const SpecialTokens& tokens = manifest.tokens;
  std::vector<int32_t> ids = {tokens.bos};
  for (int64_t i = 0; i < images; ++i) {
    ids.push_back(*tokens.boi);
    ids.insert(ids.end(), size_t(tokens.tokens_per_image), *tokens.image);
    ids.push_back(*tokens.eoi);
  }
  for (int64_t id = 0; int64_t(ids.size()) < count; id = (id + 1) % manifest.vocab_size) {
    if (id != tokens.image && id != tokens.boi && id != tokens.eoi) ids.push_back(int32_t(id));
  }
  return ids;
}

}  // namespace t5g2::bench
