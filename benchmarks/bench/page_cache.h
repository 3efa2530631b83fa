// The system's page cache, which decides whether opening a bundle reads the disk.

#pragma once

#include <string>
#include <vector>

namespace t5g2::bench {

// Reads the files in.
void warm_up(const std::vector<std::string>& files);

// Drops the files from the cache. False where the system kept more than a twentieth, as while another program maps them.
bool drop(const std::vector<std::string>& files);

}  // namespace t5g2::bench
