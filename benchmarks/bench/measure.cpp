#include "measure.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <string>

#include "clock.h"
#include "energy.h"
#include "ids.h"
#include "machine.h"
#include "page_cache.h"
#include "runtime/cli/memory.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/error.h"
#include "runtime/engine/sampler.h"
#include "token_bytes.h"

namespace t5g2::bench {
namespace {

// An opened bundle, and the work that is timed.
class Work {
 public:
  Work(const Bundle& bundle, const Setting& setting)
      : setting_(setting),
        engine_(bundle.folder, {setting.threads}),
        sampler_({}, 0, {}, engine_.manifest().vocab_size),
        pixels_(pixel_count()) {}

  void encode(int32_t images) {
    source_ = engine_.encode(source_ids(engine_.manifest(), setting_.source, images), pixels_.data(), size_t(images));
  }

  void start_target(int32_t position) {
    position_ = position;
    target_ = {engine_.manifest().tokens.bos};
  }

  // Feeds the last token and chooses the next.
  void step() {
    const auto choose = [&](size_t, std::span<float> logits) {
      target_.back() = sampler_.sample(logits, target_, {});
      return true;
    };
    engine_.feed(source_, cache_, target_, size_t(position_++), choose);
  }

  void first_token() {
    encode(setting_.images);
    start_target(0);
    step();
  }

 private:
  size_t pixel_count() const {
    const Manifest& m = engine_.manifest();
    return setting_.images ? size_t(setting_.images) * 3 * size_t(m.image->side) * size_t(m.image->side) : 0;
  }

  const Setting& setting_;
  Engine engine_;
  Sampler sampler_;
  std::vector<float> pixels_;
  EncodedSource source_;
  Pages cache_ = engine_.new_cache();
  std::vector<int32_t> target_;
  int32_t position_ = 0;
};

// Seconds of each of `repeat` calls, after one that is not counted.
std::vector<double> times(int32_t repeat, const std::function<void()>& call) {
  call();
  std::vector<double> found;
  for (int32_t i = 0; i < repeat; ++i) {
    const Clock clock;
    call();
    found.push_back(clock.seconds());
  }
  return found;
}

std::vector<double> rates(double amount, std::vector<double> seconds) {
  for (double& s : seconds) s = amount / s;
  return seconds;
}

// Runs `call` (which runs its work `repeat` + 1 times, `tokens` each) and gives the joules that a token took, or null.
template <class Call>
Json joules_per_token(EnergyMeter& meter, double tokens, const Call& call) {
  meter.start();
  call();
  const auto joules = meter.stop();
  return joules ? Json(*joules / tokens) : Json();
}

// The programs that sources with so many pictures need, as paths.
std::vector<std::string> files_of(const Bundle& bundle, int32_t images) {
  std::vector<std::string> files = {bundle.file("text.pte")};
  if (images) files.push_back(bundle.file("vision.pte"));
  return files;
}

}  // namespace

double file_bytes(const Bundle& bundle, int32_t images) {
  double bytes = 0;
  for (const std::string& file : files_of(bundle, images)) bytes += double(std::filesystem::file_size(file));
  return bytes;
}

void check_memory(const Bundle& bundle, const Setting& setting) {
  const auto available = available_memory();
  if (!available) return;
  const Manifest& m = bundle.manifest;
  const auto planned = nlohmann::json::parse(m.text).at("memory").at("planned_bytes");
  const double share = double(setting.source) / m.max_source;
  double bytes = file_bytes(bundle, setting.images);
  bytes += double(m.self_cache_bytes() + m.cross_bytes(size_t(setting.source)));
  bytes += planned.value("encoder", 0.0) * share + planned.value("decoder_step", 0.0) / m.max_rows;
  if (bytes <= double(*available)) return;
  fail(bundle.folder, ": takes ", int64_t(bytes / 1e6), " MB at a source of ", setting.source, " tokens, and ",
       *available / 1000000, " MB are available; close other programs, or give a smaller bundle or a shorter --source");
}

Json measure_loading(const Bundle& bundle, const Setting& setting, bool cold) {
  const auto files = files_of(bundle, setting.images);
  if (cold) {
    if (!drop(files)) return {{"load_cold_s", nullptr}, {"first_token_cold_s", nullptr}};
  } else {
    warm_up(files);
  }
  const Clock clock;
  Work work(bundle, setting);
  const double load = clock.seconds();
  if (!cold) return {{"load_warm_s", load}};
  work.first_token();
  return {{"load_cold_s", load}, {"first_token_cold_s", clock.seconds()}};
}

Json measure_running(const Bundle& bundle, const Setting& s) {
  const State before = state();
  Work work(bundle, s);
  EnergyMeter meter;
  const double loaded = cli::resident_memory_mb();
  Json out;

  std::vector<double> encode, decode;
  const double encoded = double(s.source) * (s.repeat + 1);
  const Json encode_energy = joules_per_token(meter, encoded, [&] { encode = times(s.repeat, [&] { work.encode(0); }); });
  out["encode_tok_s"] = figure(rates(s.source, encode));
  const std::vector<double> first = times(s.repeat, [&] { work.first_token(); });
  out["first_token_s"] = figure(first);
  // What pictures add to a source of the same length, and a step.
  if (s.images) {
    const std::vector<double> seen = times(s.repeat, [&] { work.encode(s.images); });
    out["picture_s"] = std::max(0.0, median(seen) - median(encode)) / s.images;
  }

  out["decode"] = Json::array();
  for (const int32_t depth : s.depths) {
    const double decoded = double(s.target) * (s.repeat + 1);
    const Json energy = joules_per_token(meter, decoded, [&] {
      decode = times(s.repeat, [&] {
        work.start_target(depth);
        for (int32_t i = 0; i < s.target; ++i) work.step();
      });
    });
    Json row = {{"depth", depth}, {"tok_s", figure(rates(s.target, decode))}, {"joules_per_token", energy}};
    if (const auto bytes = bytes_per_token(bundle.manifest, s.source, depth)) row["bytes_per_token"] = *bytes;
    out["decode"].push_back(row);
  }
  out["encode_joules_per_token"] = encode_energy;
  out["energy_source"] = meter.source().empty() ? Json(nullptr) : Json(meter.source());
  if (meter.source().empty()) out["no_energy"] = meter.why();
  out["loaded_mb"] = loaded;
  out["resident_mb"] = cli::resident_memory_mb();
  out["peak_mb"] = cli::peak_memory_mb();
  const State after = state();
  out["state_before"] = json(before);
  out["state_after"] = json(after);
  out["throttling"] = throttling(before, after);
  return out;
}

}  // namespace t5g2::bench
