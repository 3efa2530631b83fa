// The time of each operator, by ExecuTorch's tracing; the trace itself is an ETDump for its developer tools.

#pragma once

#include <string>

#include "runtime/engine/bundle.h"
#include "statistics.h"

namespace t5g2::bench {

// Encodes `source` tokens and decodes steps at target position `depth` under a tracer. Writes the ETDump to `file` and returns
// {"encoder": [{"operator", "calls", "ms"}, …], "decoder_step": …}: calls and milliseconds of one run, the slowest first;
// time within an inner operator counts for that alone. Throws Error.
Json profile(const Bundle& bundle, int64_t source, int64_t depth, const std::string& file);

}  // namespace t5g2::bench
