// t5g2-bench: speed and memory of bundles.

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <exception>
#include <filesystem>
#include <new>

#include "bandwidth.h"
#include "child.h"
#include "ids.h"
#include "machine.h"
#include "measure.h"
#include "options.h"
#include "profile.h"
#include "report.h"
#include "runtime/cli/console.h"
#include "runtime/engine/bundle.h"
#include "runtime/engine/file.h"
#include "runtime/engine/program.h"

extern "C" {
const char* const* t5g2_available_kernels();  // of the operator library
}

namespace t5g2 {

const char* const cli::kProgram = "t5g2-bench";

namespace bench {
namespace {

// Numbers that the user gave, all of which must fit, or those of the defaults that do.
std::vector<int32_t> fitting(const std::optional<std::vector<int32_t>>& given, std::span<const int32_t> defaults, int64_t low,
                             int64_t high, const std::string& complaint) {
  if (!given) {
    std::vector<int32_t> found;
    for (const int32_t n : defaults) {
      if (n >= low && n <= high) found.push_back(n);
    }
    return found.empty() ? std::vector{int32_t(high)} : found;
  }
  for (const int32_t n : *given) {
    if (n < low || n > high) misuse(complaint, n, "; give ", low, " to ", high);
  }
  return *given;
}

struct Plan {
  Bundle bundle;
  std::string name;  // the folder's
  std::vector<int32_t> sources;
  Setting setting;  // but for threads and source
};

Plan plan(const Options& options, const std::string& folder) {
  Plan p{open_bundle(folder, default_cache_folder()), "", {}, {}};
  const Manifest& m = p.bundle.manifest;
  std::filesystem::path path = std::filesystem::path(folder).lexically_normal();
  p.name = path.has_filename() ? path.filename() : path.parent_path().filename();
  if (options.images && !m.has_vision) {
    fail(folder, ": a bundle without vision, so --images ", options.images, " can't be had; export without --no-vision");
  }
  const int64_t least = least_source(m, options.images);
  if (least > m.max_source) {
    fail(folder, ": --images ", options.images, " take ", least, " source tokens, and the bundle takes ", m.max_source,
         "; give fewer, or export with --max-source ", least);
  }
  p.sources = fitting(options.sources, kDefaultSources, least, m.max_source, join(folder, ": --source "));
  const int32_t target = options.target.value_or(std::min(kDefaultTarget, m.max_target));
  if (target > m.max_target) {
    fail(folder, ": --target ", target, " is longer than the bundle takes; give at most ", m.max_target, ", or export with ",
         "--max-target ", target);
  }
  const auto depths = fitting(options.depths, kDefaultDepths, 0, m.max_target - target,
                              join(folder, ": with ", target, " tokens after it, --depth "));
  p.setting = {0, 0, options.images, depths, target, options.repeat};
  for (const int32_t source : p.sources) {
    Setting setting = p.setting;
    setting.source = source;
    check_memory(p.bundle, setting);
  }
  return p;
}

std::string now() {
  const std::time_t seconds = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&seconds));
  return text;
}

std::string command_line(int argc, char** argv) {
  std::string line = "t5g2-bench";
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    line += word.find_first_of(" '\"$&;") == word.npos ? join(" ", word) : join(" '", word, "'");
  }
  return line;
}

// As many as ExecuTorch finds useful, which does not look at what cores it may use. In a child, as it starts its threads.
int32_t default_threads(const std::vector<int32_t>& cores) {
  const int32_t useful = in_child("ExecuTorch", [] { return Json{{"threads", thread_count()}}; })["threads"].get<int32_t>();
  return cores.empty() ? useful : std::min(useful, int32_t(cores.size()));
}

void choose_kernels(const std::string& name) {
  if (name.empty()) return;
  std::string known;
  for (const char* const* kernels = t5g2_available_kernels(); *kernels; ++kernels) {
    if (name == *kernels) {
      setenv("T5G2_CPU", name.c_str(), 1);
      return;
    }
    known += join(known.empty() ? "" : ", ", *kernels);
  }
  misuse("--kernels ", name, ": this CPU has no such kernels; it has ", known);
}

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options), celsius_(celsius()) {}

  // Measures and returns the report.
  Json run(std::vector<int32_t> threads, const std::vector<Plan>& plans) {
    if (threads.empty()) threads = {default_threads(options_.cores)};
    report_["loading"] = Json::array();
    report_["results"] = Json::array();
    for (const int32_t count : threads) check_bandwidth_memory(count);
    for (const int32_t count : threads) {
      for (const Plan& p : plans) measure_bundle(p, count);
    }
    return std::move(report_);
  }

 private:
  static void check_bandwidth_memory(int32_t threads) {
    const auto available = available_memory();
    if (!available || bandwidth_memory(threads) <= *available) return;
    fail("--threads ", threads, ": measuring how fast memory is read takes ", bandwidth_memory(threads) / 1000000, " MB, and ",
         *available / 1000000, " MB are available; close other programs, or give fewer threads");
  }

  Json measure(const std::string& what, const std::function<Json()>& work) {
    cli::note(what);
    cool_down(celsius_, options_.cool_down);
    return in_child(what, work);
  }

  // GB a second. Others' work only lowers it, so it is measured before and after what it is compared with.
  static double bandwidth(int32_t threads) {
    return in_child("memory", [&] { return Json{{"gb_s", read_bandwidth(threads) / 1e9}}; })["gb_s"];
  }

  Json measure_source(const Plan& p, const Setting& setting, const std::string& what) {
    const double before = bandwidth(setting.threads);
    Json result = measure(join(what, ", source ", setting.source), [&] { return measure_running(p.bundle, setting); });
    const double read_gb_s = std::max(before, bandwidth(setting.threads));
    result["read_gb_s"] = read_gb_s;
    for (Json& decode : result["decode"]) {
      if (!decode.contains("bytes_per_token")) continue;
      const double read = double(decode["bytes_per_token"]) * double(decode["tok_s"]["median"]);
      decode["bandwidth_share"] = read / (read_gb_s * 1e9);
    }
    return result;
  }

  void measure_bundle(const Plan& p, int32_t threads) {
    Setting setting = p.setting;
    setting.threads = threads;
    setting.source = p.sources.front();
    const Json head = {{"bundle", p.name},
                       {"backend", name(p.bundle.manifest.backend)},
                       {"quantization", nlohmann::json::parse(p.bundle.manifest.text)["quantization"]["text"]["name"]},
                       {"kernels", kernels(p.bundle.manifest.backend)},
                       {"threads", threads}};
    const std::string what = join(p.bundle.folder, ", ", threads, threads == 1 ? " thread" : " threads");

    Json loading = head;
    loading["file_mb"] = file_bytes(p.bundle, setting.images) / 1e6;
    // Cold first: what it reads in anew may come by huge pages, and what follows is warm.
    for (const bool cold : {true, false}) {
      loading.update(measure(join(what, cold ? ", cold" : ", warm"), [&] { return measure_loading(p.bundle, setting, cold); }));
    }
    report_["loading"].push_back(loading);
    for (const int32_t source : p.sources) {
      setting.source = source;
      Json result = head;
      result.update({{"source", source}, {"images", setting.images}, {"target", setting.target}});
      result.update(measure_source(p, setting, what));
      report_["results"].push_back(result);
    }
    if (!options_.profile) return;
    report_["profile"] = measure(join(what, ", profile"), [&] {
      set_threads(threads);
      return profile(p.bundle, setting.source, setting.depths.front(), *options_.profile);
    });
  }

  const Options& options_;
  const std::optional<double> celsius_;  // at the start
  Json report_;
};

int run(int argc, char** argv) {
  const Options options = parse(argc, argv);
  if (options.help) return cli::print(help_text()), 0;
  if (options.version) return cli::print(join(cli::kProgram, " " T5G2_VERSION "\n")), 0;
  choose_kernels(options.kernels);
  pin(options.cores);
  std::vector<Plan> plans;
  for (const std::string& folder : options.bundles) plans.push_back(plan(options, folder));

  Json report = {{"format", "t5g2-bench"}, {"format_version", 1}, {"version", T5G2_VERSION}, {"date", now()},
                 {"command", command_line(argc, argv)}, {"machine", machine()}, {"repeat", options.repeat},
                 {"target", plans.front().setting.target}, {"pinned", options.cores}};
  report.update(Bench(options).run(options.threads, plans));
  const std::string json = report.dump(1) + "\n";
  if (options.save) {
    write_atomically(*options.save, [&](FileWriter& file) { file.write(json.data(), json.size()); });
  }
  cli::print(options.output == Output::kJson ? json : options.output == Output::kCsv ? csv(report) : markdown(report));
  return 0;
}

int run_and_explain(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const cli::ReaderGone&) {
    return cli::kReaderGone;
  } catch (const Error& error) {
    cli::say_error(error.what());
    return error.kind() == Error::Kind::kUsage ? 2 : 1;
  } catch (const std::bad_alloc&) {
    cli::say_error("not enough memory; close other programs");
  } catch (const std::exception& error) {
    cli::say_error(join("unexpected ", error.what(), "; report it"));
  }
  return 1;
}

}  // namespace
}  // namespace bench
}  // namespace t5g2

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  t5g2::cli::open_standard_streams();
  return t5g2::bench::run_and_explain(argc, argv);
}
