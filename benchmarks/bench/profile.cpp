#include "profile.h"

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include <executorch/devtools/etdump/etdump_flatcc.h>

#include "ids.h"
#include "runtime/engine/file.h"
#include "runtime/engine/text_program.h"

namespace t5g2::bench {
namespace {

using executorch::runtime::ChainID;
using executorch::runtime::DebugHandle;
using executorch::runtime::EventTracerEntry;

constexpr int kEncodes = 2, kSteps = 8;

// Keeps ExecuTorch's trace, and beside it the time that each event took without the events inside it.
class Tracer : public executorch::etdump::ETDumpGen {
 public:
  EventTracerEntry start_profiling(const char* name, ChainID chain, DebugHandle handle) override {
    open_.push_back({name, Clock::now(), Duration(0)});
    return ETDumpGen::start_profiling(name, chain, handle);
  }

  void end_profiling(EventTracerEntry entry) override {
    ETDumpGen::end_profiling(entry);
    if (open_.empty()) return;
    const Event event = open_.back();
    open_.pop_back();
    const Duration whole = Clock::now() - event.start;
    if (!open_.empty()) open_.back().inside += whole;
    Total& total = totals_[event.name];
    ++total.calls;
    total.time += whole - event.inside;
  }

  // What was traced since the last call, for one of `runs` runs.
  Json take(int runs) {
    std::vector<std::pair<std::string, Total>> sorted(totals_.begin(), totals_.end());
    std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second.time > b.second.time; });
    Json out = Json::array();
    for (const auto& [name, total] : sorted) {
      out.push_back({{"operator", name},
                     {"calls", double(total.calls) / runs},
                     {"ms", std::chrono::duration<double, std::milli>(total.time).count() / runs}});
    }
    totals_.clear();
    return out;
  }

 private:
  using Clock = std::chrono::steady_clock;
  using Duration = Clock::duration;
  struct Event {
    std::string name;
    Clock::time_point start;
    Duration inside;
  };
  struct Total {
    int64_t calls = 0;
    Duration time{0};
  };

  std::vector<Event> open_;
  std::map<std::string, Total> totals_;
};

}  // namespace

Json profile(const Bundle& bundle, int64_t source, int64_t depth, const std::string& file) {
  Tracer tracer;
  tracer.set_event_tracer_profiling_level(executorch::runtime::EventTracerProfilingLevel::kProfileAllEvents);
  const auto program = TextProgram::open(bundle, &tracer);
  const Manifest& m = bundle.manifest;
  std::vector<float> features(m.has_vision ? size_t(source * m.hidden_size) : 0);
  EncodedSource encoded;
  const auto encode = [&] { encoded = program->encode(source_ids(m, source, 0), features.empty() ? nullptr : features.data()); };
  Pages cache(m.self_cache_bytes());
  const auto step = [&] { program->step(encoded, cache, std::vector{m.tokens.bos}, depth, [](std::span<float>) {}); };

  encode();  // the first runs set memory up
  step();
  tracer.take(1);
  Json out;
  for (int i = 0; i < kEncodes; ++i) encode();
  out["encoder"] = tracer.take(kEncodes);
  for (int i = 0; i < kSteps; ++i) step();
  out["decoder_step"] = tracer.take(kSteps);

  const auto trace = tracer.get_etdump_data();
  const std::unique_ptr<void, decltype(&std::free)> owned(trace.buf, &std::free);
  write_atomically(file, [&](FileWriter& writer) { writer.write(trace.buf, trace.size); });
  return out;
}

}  // namespace t5g2::bench
