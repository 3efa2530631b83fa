// Memory of this process, in MB of 10^6 bytes; 0 where the system does not say.

#pragma once

namespace t5g2::cli {

double resident_memory_mb();
double peak_memory_mb();  // the most that was resident at a time

}  // namespace t5g2::cli
