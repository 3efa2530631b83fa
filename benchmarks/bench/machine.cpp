#include "machine.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "clock.h"
#include "runtime/engine/error.h"

namespace t5g2::bench {
namespace {

namespace fs = std::filesystem;

// The files that match folder/<prefix>*/<rest>, in order.
std::vector<fs::path> matching(const fs::path& folder, const std::string& prefix, const std::string& rest) {
  std::vector<fs::path> found;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    if (!entry.path().filename().string().starts_with(prefix)) continue;
    if (const fs::path file = entry.path() / rest; fs::exists(file, none)) found.push_back(file);
  }
  std::sort(found.begin(), found.end());
  return found;
}

// The value of the first line "key : value" of a file.
std::optional<std::string> field(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find(':');
    const size_t start = colon == line.npos ? colon : line.find_first_not_of(" \t", colon + 1);
    if (start != line.npos) return line.substr(start);
  }
  return std::nullopt;
}

std::optional<double> memory_field(const std::string& key) {  // in bytes
  const auto value = field("/proc/meminfo", key);
  if (!value) return std::nullopt;
  return std::atof(value->c_str()) * 1024;
}

// Xor of registers takes a cycle, and each waits for the one before. The best of many tries, for a tenth of a second: others'
// work only slows it, and a core that has slept takes a while to run at its clock again.
double core_ghz() {
  constexpr int kRounds = 20000, kLinks = 16;
  double best = 0;
  for (const Clock whole; whole.seconds() < 0.1;) {
    uint64_t x = 0, y = 0x9E3779B97F4A7C15u;
    asm volatile("" : "+r"(y));
    const Clock clock;
    for (int round = 0; round < kRounds; ++round) {
      for (int link = 0; link < kLinks; ++link) {
        x ^= y;
        asm volatile("" : "+r"(x));
      }
    }
    best = std::max(best, double(kRounds) * kLinks / clock.seconds() / 1e9);
  }
  return best;
}

// Whether this process may run on the core that a path under cpu<N> is about.
bool ours(const fs::path& folder) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed)) return true;
  const std::string name = folder.filename();
  return CPU_ISSET(size_t(std::atoi(name.c_str() + std::string("cpu").size())), &allowed);
}

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

}  // namespace

fs::path sysfs() {
  const char* other = std::getenv("T5G2_SYSFS");
  return other && *other ? other : "/sys";
}

std::optional<std::string> read_line(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  if (!std::getline(in, line)) return std::nullopt;
  return line;
}

std::optional<double> read_number(const fs::path& file) {
  const auto line = read_line(file);
  if (!line) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(line->c_str(), &end);
  if (end == line->c_str()) return std::nullopt;
  return value;
}

Json machine() {
  Json out;
  // x86, then what some ARM kernels write; a phone's board has its name in the device tree.
  auto name = field("/proc/cpuinfo", "model name");
  if (!name) name = field("/proc/cpuinfo", "Hardware");
  if (!name) name = read_line("/proc/device-tree/model");
  out["cpu"] = name ? name->substr(0, name->find('\0')) : "unknown";
  out["cores"] = sysconf(_SC_NPROCESSORS_ONLN);
  if (const auto total = memory_field("MemTotal")) out["memory_mb"] = int64_t(*total / 1e6);
  utsname system;
  if (!uname(&system)) out["system"] = join(system.sysname, " ", system.release, " ", system.machine);
  return out;
}

std::optional<double> celsius() {
  std::optional<double> hottest;
  for (const fs::path& zone : matching(sysfs() / "class/thermal", "thermal_zone", "temp")) {
    // In thousandths of a degree, as the kernel has it; zones that are off say 0 or less.
    const auto value = read_number(zone);
    if (value && *value > 0 && *value < 200e3) hottest = std::max(hottest.value_or(0), *value / 1e3);
  }
  return hottest;
}

State state() {
  State now{core_ghz(), celsius(), {}, {}};
  const fs::path cpus = sysfs() / "devices/system/cpu";
  for (const fs::path& limit : matching(cpus, "cpu", "cpufreq/scaling_max_freq")) {
    if (!ours(limit.parent_path().parent_path())) continue;
    const auto allowed = read_number(limit), highest = read_number(limit.parent_path() / "cpuinfo_max_freq");
    if (allowed && highest && *highest > 0) {
      now.frequency_limit = std::min(now.frequency_limit.value_or(1), *allowed / *highest);
    }
  }
  for (const fs::path& counter : matching(cpus, "cpu", "thermal_throttle/core_throttle_count")) {
    if (const auto events = read_number(counter)) now.throttle_events = now.throttle_events.value_or(0) + int64_t(*events);
  }
  return now;
}

Json json(const State& s) {
  return {{"core_ghz", s.core_ghz},
          {"celsius", or_null(s.celsius)},
          {"frequency_limit", or_null(s.frequency_limit)},
          {"throttle_events", or_null(s.throttle_events)}};
}

std::string throttling(const State& before, const State& after) {
  const auto percent = [](double share) { return join(int(share * 100 + 0.5), " %"); };
  if (before.throttle_events && after.throttle_events && *after.throttle_events > *before.throttle_events) {
    return join(*after.throttle_events - *before.throttle_events, " throttle events");
  }
  for (const State* s : {&before, &after}) {
    if (s->frequency_limit && *s->frequency_limit < 0.99) {
      return join("a core is held to ", percent(*s->frequency_limit), " of its frequency");
    }
  }
  if (after.core_ghz < 0.85 * before.core_ghz) {  // a shared machine loses a tenth to others
    return join("the clock fell to ", percent(after.core_ghz / before.core_ghz), " of what it was before");
  }
  return "none";
}

std::optional<int64_t> available_memory() {
  auto available = memory_field("MemAvailable");
  struct rlimit limit;
  if (!getrlimit(RLIMIT_AS, &limit) && limit.rlim_cur != RLIM_INFINITY) {
    available = std::min(available.value_or(1e18), double(limit.rlim_cur));
  }
  if (!available) return std::nullopt;
  return int64_t(*available);
}

void pin(const std::vector<int32_t>& cores) {
  if (cores.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int32_t core : cores) CPU_SET(size_t(core), &set);
  cpu_set_t allowed;
  if (!sched_getaffinity(0, sizeof(allowed), &allowed)) {
    for (const int32_t core : cores) {
      if (!CPU_ISSET(size_t(core), &allowed)) {
        misuse("--cores: core ", core, " is not there, or not given to this program; see /proc/cpuinfo");
      }
    }
  }
  if (sched_setaffinity(0, sizeof(set), &set)) misuse("--cores: the system refuses them; leave --cores out");
}

void cool_down(std::optional<double> wanted, int32_t seconds) {
  const Clock clock;
  while (wanted && clock.seconds() < seconds) {
    const auto now = celsius();
    if (!now || *now <= *wanted + 3) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
}

}  // namespace t5g2::bench
