// What is measured of a bundle. Each function is for a process of its own, so that loading and memory are its own.

#pragma once

#include <cstdint>
#include <vector>

#include "runtime/engine/bundle.h"
#include "statistics.h"

namespace t5g2::bench {

struct Setting {
  int32_t threads;
  int32_t source, images;
  std::vector<int32_t> depths;
  int32_t target, repeat;
};

// Of the programs that sources with so many pictures need.
double file_bytes(const Bundle& bundle, int32_t images);

// Throws Error where the memory that the setting takes is not there. Bytes are an upper bound, without what others share.
void check_memory(const Bundle& bundle, const Setting& setting);

// {"load_warm_s", "load_cold_s", "first_token_cold_s"}; cold ones are null where the system keeps the files in its cache.
Json measure_loading(const Bundle& bundle, const Setting& setting, bool cold);

// {"encode_tok_s", "first_token_s", "decode": [{"depth", "tok_s", …}], "resident_mb", "peak_mb", …}: see benchmarks/README.md.
Json measure_running(const Bundle& bundle, const Setting& setting);

}  // namespace t5g2::bench
