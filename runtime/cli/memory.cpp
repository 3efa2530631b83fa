#include "memory.h"

#include <sys/resource.h>

#include <cstdlib>
#include <fstream>
#include <string>

namespace t5g2::cli {
namespace {

[[maybe_unused]] double status_mb(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field)) return std::atof(line.c_str() + field.size()) * 1024 / 1e6;
  }
  return 0;
}

}  // namespace

#ifdef __linux__
double resident_memory_mb() { return status_mb("VmRSS:"); }

// getrusage would count the program that this one was started from by exec, such as Python.
double peak_memory_mb() { return status_mb("VmHWM:"); }
#else
double resident_memory_mb() { return 0; }

double peak_memory_mb() {
  struct rusage usage;
  return getrusage(RUSAGE_SELF, &usage) ? 0 : double(usage.ru_maxrss) / 1e6;
}
#endif

}  // namespace t5g2::cli
