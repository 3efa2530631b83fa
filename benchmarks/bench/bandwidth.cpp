#include "bandwidth.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "clock.h"
#include "runtime/engine/pages.h"

namespace t5g2::bench {
namespace {

void read_all(const Pages& pages) {
  const auto* words = reinterpret_cast<const uint64_t*>(pages.data());
  const size_t half = pages.size() / sizeof(uint64_t) / 2;
  uint64_t sums[8] = {};
  for (size_t i = 0; i < half; i += 8) {
    for (const uint64_t* line : {words + i, words + half + i}) {
      __builtin_prefetch(line + 256);
      for (size_t j = 0; j < 8; ++j) sums[j] += line[j];
    }
  }
  volatile uint64_t total = 0;
  for (uint64_t sum : sums) total = total + sum;
}

}  // namespace

double read_bandwidth(int32_t threads) {
  const size_t share = size_t(bandwidth_memory(threads) / threads / 128 * 128);
  std::vector<Pages> memory;
  for (int32_t i = 0; i < threads; ++i) std::memset(memory.emplace_back(share, true).data(), 1, share);
  double best = 0;
  for (int run = 0; run < 7; ++run) {
    const Clock clock;
    std::vector<std::thread> readers;
    for (const Pages& pages : memory) readers.emplace_back(read_all, std::cref(pages));
    for (auto& reader : readers) reader.join();
    best = std::max(best, double(share) * double(threads) / clock.seconds());
  }
  return best;
}

}  // namespace t5g2::bench
