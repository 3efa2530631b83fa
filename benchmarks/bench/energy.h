// Energy by the machine's own counters, read before and after a run so that reading adds nothing to it.

#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace t5g2::bench {

// RAPL where there is one (x86, all CPU packages), else a battery that is discharging (the whole device).
class EnergyMeter {
 public:
  EnergyMeter();

  // "rapl" or "battery"; empty: neither, and `why` says so.
  const std::string& source() const { return source_; }
  const std::string& why() const { return why_; }

  void start();
  // Joules since `start`; none where the counter did not move, or wrapped around.
  std::optional<double> stop();

 private:
  // A counter of joules, or of coulombs that the voltage makes joules of.
  struct Reading {
    double count, volts;
  };
  std::optional<Reading> read() const;
  bool find_battery(const std::filesystem::path& supply);

  std::string source_, why_;
  std::vector<std::filesystem::path> counters_;
  std::optional<Reading> started_;
};

}  // namespace t5g2::bench
