// What one decoder step must read.

#pragma once

#include <cstdint>
#include <optional>

#include "runtime/engine/bundle.h"

namespace t5g2::bench {

// Bytes: the decoder's and the vocabulary head's packed weights (quant/packed.py has the format), cross K/V of `source` tokens,
// and the self cache as target position `depth` sees it. None for bundles that are not native.
std::optional<int64_t> bytes_per_token(const Manifest& manifest, int64_t source, int64_t depth);

}  // namespace t5g2::bench
