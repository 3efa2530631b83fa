#include "energy.h"

#include <algorithm>

#include "machine.h"

namespace t5g2::bench {

namespace fs = std::filesystem;

EnergyMeter::EnergyMeter() : why_("no counter: neither RAPL nor a battery") {
  std::error_code none;
  for (const auto& zone : fs::directory_iterator(sysfs() / "class/powercap", none)) {
    const std::string name = zone.path().filename();  // intel-rapl:0 is a package, intel-rapl:0:1 a part of it
    if (!name.starts_with("intel-rapl:") || std::count(name.begin(), name.end(), ':') != 1) continue;
    if (read_number(zone.path() / "energy_uj")) {
      source_ = "rapl";
      counters_.push_back(zone.path() / "energy_uj");
    } else {
      why_ = "RAPL's counter can't be read; run as root";
    }
  }
  if (!counters_.empty()) return;
  for (const auto& supply : fs::directory_iterator(sysfs() / "class/power_supply", none)) {
    if (read_line(supply.path() / "type") == "Battery" && find_battery(supply.path())) return;
  }
}

bool EnergyMeter::find_battery(const fs::path& supply) {
  if (read_line(supply / "status") != "Discharging") {
    why_ = "the battery is not discharging; unplug the device";
    return false;
  }
  for (const char* counter : {"energy_now", "charge_counter"}) {
    if (!read_number(supply / counter)) continue;
    source_ = "battery";
    counters_ = {supply / counter};
    return true;
  }
  why_ = "the battery has no counter of charge or energy";
  return false;
}

// RAPL counts up, in microjoules. A battery counts down: energy_now in microwatt hours, charge_counter in microampere hours,
// and voltage_now is in microvolts.
std::optional<EnergyMeter::Reading> EnergyMeter::read() const {
  if (counters_.empty()) return std::nullopt;
  double total = 0;
  for (const fs::path& counter : counters_) {
    const auto value = read_number(counter);
    if (!value) return std::nullopt;
    total += *value;
  }
  if (source_ == "rapl") return Reading{total / 1e6, 1};
  const double hours = -total / 1e6 * 3600;
  if (counters_[0].filename() == "energy_now") return Reading{hours, 1};
  const auto volts = read_number(counters_[0].parent_path() / "voltage_now");
  if (!volts) return std::nullopt;
  return Reading{hours, *volts / 1e6};
}

void EnergyMeter::start() { started_ = read(); }

std::optional<double> EnergyMeter::stop() {
  const auto now = read();
  if (!started_ || !now || now->count <= started_->count) return std::nullopt;
  return (now->count - started_->count) * (now->volts + started_->volts) / 2;
}

}  // namespace t5g2::bench
