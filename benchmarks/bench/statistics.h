// Runs of one figure: the median and how far they spread.

#pragma once

#include <algorithm>
#include <vector>

#include <nlohmann/json.hpp>

namespace t5g2::bench {

using Json = nlohmann::ordered_json;

// The value below which a share of the runs lies, between two runs in proportion. runs: at least one.
inline double quantile(std::vector<double> runs, double share) {
  std::sort(runs.begin(), runs.end());
  const double at = share * double(runs.size() - 1);
  const auto low = size_t(at), high = std::min(low + 1, runs.size() - 1);
  return runs[low] + (at - double(low)) * (runs[high] - runs[low]);
}

inline double median(const std::vector<double>& runs) { return quantile(runs, 0.5); }

// {median, low, high: the quartiles, runs}.
inline Json figure(const std::vector<double>& runs) {
  return {{"median", median(runs)}, {"low", quantile(runs, 0.25)}, {"high", quantile(runs, 0.75)}, {"runs", runs}};
}

}  // namespace t5g2::bench
