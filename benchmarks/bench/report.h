// Results as people read them, and as spreadsheets do. The JSON they are made from is described in benchmarks/README.md.

#pragma once

#include <string>

#include "statistics.h"

namespace t5g2::bench {

std::string markdown(const Json& report);
std::string csv(const Json& report);

}  // namespace t5g2::bench
