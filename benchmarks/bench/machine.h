// The machine and the state it is in: a figure means little without them.

#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "statistics.h"

namespace t5g2::bench {

// CPU, cores, memory and system, as JSON.
Json machine();

// Where the kernel shows its counters: /sys, or what T5G2_SYSFS names.
std::filesystem::path sysfs();

// First line of a small file; none where there is none.
std::optional<std::string> read_line(const std::filesystem::path& file);
std::optional<double> read_number(const std::filesystem::path& file);

// How fast the CPU runs at this moment. Absent values: the machine does not say.
struct State {
  double core_ghz;                         // measured: cycles of a chain of dependent instructions
  std::optional<double> celsius;           // of the hottest zone
  std::optional<double> frequency_limit;   // the least share of its highest frequency that one of our cores is held to
  std::optional<int64_t> throttle_events;  // since the machine started
};

// Takes a tenth of a second of a core.
State state();
// Of the hottest zone; none where the machine does not say. Takes no time.
std::optional<double> celsius();
Json json(const State& state);

// Why the two states can't be compared with runs of a cool machine: what slowed the CPU down; "none" otherwise.
std::string throttling(const State& before, const State& after);

// Bytes that programs can still take without pushing others out; none where the system does not say.
std::optional<int64_t> available_memory();

// Restricts this process, and the threads it will start, to those cores. Throws Error naming one that is not there.
void pin(const std::vector<int32_t>& cores);

// Waits until the hottest zone is at most 3 degrees above `wanted`, at most `seconds` long. At once where no zone tells.
void cool_down(std::optional<double> wanted, int32_t seconds);

}  // namespace t5g2::bench
