// What t5g2-bench is asked to measure.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace t5g2::bench {

enum class Output { kMarkdown, kCsv, kJson };

struct Options {
  std::vector<std::string> bundles;
  std::vector<int32_t> threads;  // empty: as many as ExecuTorch finds useful
  std::optional<std::vector<int32_t>> sources, depths;  // unset: defaults, those that the bundle takes
  std::optional<int32_t> target;
  int32_t images = 0;
  int32_t repeat = 5;
  std::vector<int32_t> cores;  // to run on; empty: all
  std::string kernels;         // empty: the best
  int32_t cool_down = 0;       // seconds to wait at most for the CPU to be as cool as at the start
  std::optional<std::string> profile, save;  // files
  Output output = Output::kMarkdown;
  bool help = false, version = false;  // then nothing else is checked
};

constexpr int32_t kDefaultSources[] = {64, 512};
constexpr int32_t kDefaultDepths[] = {0, 256};
constexpr int32_t kDefaultTarget = 64;

// Throws Error(kUsage).
Options parse(int argc, const char* const* argv);

std::string help_text();

}  // namespace t5g2::bench
