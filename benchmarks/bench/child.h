// Work in a process of its own.

#pragma once

#include <functional>
#include <string>

#include "statistics.h"

namespace t5g2::bench {

// Forks, and gives what `work` returns there. Throws the Error that it threw; where the process was killed, an Error that begins
// with `what`. Only for a process with one thread.
Json in_child(const std::string& what, const std::function<Json()>& work);

}  // namespace t5g2::bench
