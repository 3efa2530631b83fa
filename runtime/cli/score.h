// How likely given targets are.

#pragma once

#include <cstdint>
#include <vector>

#include "t5g2.hpp"

namespace t5g2::cli {

// Natural log of the model's probability of the target, and of ending after it. Throws Error.
double score(const Engine& engine, const Session& session, std::vector<int32_t> target_ids);

}  // namespace t5g2::cli
