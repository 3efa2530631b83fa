// The memory's speed as a plain loop sees it: what decoding is held against.

#pragma once

#include <algorithm>
#include <cstdint>

namespace t5g2::bench {

// Bytes a second that `threads` threads read together from memory that no cache holds, each in two streams, which is faster
// than one, and in huge pages where there are any: the best of seven runs. Takes bandwidth_memory(threads). Throws
// std::bad_alloc.
double read_bandwidth(int32_t threads);

// Bytes: 256 MB in all, more than caches hold, and at least 32 MB a thread.
inline int64_t bandwidth_memory(int32_t threads) { return std::max<int64_t>(int64_t(256) << 20, threads * (int64_t(32) << 20)); }

}  // namespace t5g2::bench
