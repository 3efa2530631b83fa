#include "options.h"

#include <algorithm>

#include "runtime/cli/command_line.h"
#include "runtime/engine/error.h"

namespace t5g2::bench {
namespace {

using cli::whole_number;

// Whole numbers, and ranges of them such as 4-7, separated by commas.
std::vector<int32_t> numbers(const std::string& name, const std::string& text, int64_t lowest, int64_t highest) {
  std::vector<int32_t> found;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, end - at);
    const size_t dash = part.find('-', 1);
    const int64_t first = whole_number(name, part.substr(0, dash), lowest, highest);
    const int64_t last = dash == part.npos ? first : whole_number(name, part.substr(dash + 1), first, highest);
    if (last - first > 1024) misuse(name, " '", part, "': more than 1024 numbers; give fewer");
    for (int64_t n = first; n <= last; ++n) found.push_back(int32_t(n));
    at = end + 1;
  }
  std::vector<int32_t> sorted = found;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) misuse(name, " '", text, "': gives a number twice");
  return found;
}

constexpr int64_t kMost = 1 << 24;

std::vector<cli::OptionGroup> groups(Options& options) {
  const auto list = [&options](const char* name, int64_t lowest, int64_t highest, auto member) {
    return [&options, name, lowest, highest, member](const std::string& value) {
      options.*member = numbers(name, value, lowest, highest);
    };
  };
  const auto number = [&options](const char* name, int64_t lowest, int64_t highest, auto member) {
    return [&options, name, lowest, highest, member](const std::string& value) {
      options.*member = int32_t(whole_number(name, value, lowest, highest));
    };
  };
  const auto text = [&options](auto member) { return [&options, member](const std::string& value) { options.*member = value; }; };
  const auto flag = [&options](bool Options::*member) {
    return [&options, member](const std::string&) { options.*member = true; };
  };
  const auto output = [&options](const std::string& value) {
    if (value != "md" && value != "csv" && value != "json") misuse("--output '", value, "': give md, csv or json");
    options.output = value == "md" ? Output::kMarkdown : value == "csv" ? Output::kCsv : Output::kJson;
  };
  return {
      {"what is measured (lists are separated by commas)",
       {{"threads", "LIST", "CPU threads (default: as many as ExecuTorch finds useful, and no more than --cores)",
         list("--threads", 1, 256, &Options::threads)},
        {"source", "LIST", "source lengths in tokens, BOS included (default: 64,512, as far as the bundle takes them)",
         list("--source", 1, kMost, &Options::sources)},
        {"depth", "LIST", "target positions to decode from (default: 0,256, as far as the bundle takes them)",
         list("--depth", 0, kMost, &Options::depths)},
        {"target", "N", "tokens decoded in one run (default: 64, or as many as the bundle takes)",
         number("--target", 1, kMost, &Options::target)},
        {"images", "N", "pictures in each source (default: 0)", number("--images", 0, 1024, &Options::images)},
        {"repeat", "N", "runs of each figure, after one that is not counted (default: 5)",
         number("--repeat", 1, 10000, &Options::repeat)},
        {"profile", "FILE", "write an ETDump of two sources and eight decoder steps, and show the time of each operator; with one "
                            "bundle, one thread count and one source length", text(&Options::profile)}}},
      {"on which part of the machine",
       {{"cores", "LIST", "run on these cores only, such as 4-7 (default: all)", list("--cores", 0, 1023, &Options::cores)},
        {"kernels", "NAME", "portable, avx2, avx512vnni, amx, neon, neon_dotprod or neon_i8mm (default: the best there are)",
         text(&Options::kernels)},
        {"cool-down", "SECONDS", "before each measurement, wait until the CPU is at most 3 degrees warmer than at the start, but no "
                                 "longer than this (default: 0)", number("--cool-down", 0, 3600, &Options::cool_down)}}},
      {"output",
       {{"output", "FORM", "md: tables; csv: a line for each figure; json: all of it (default: md)", output},
        {"save", "FILE", "write the JSON to a file too", text(&Options::save)},
        {"version", nullptr, "print the version", flag(&Options::version)},
        {"help", nullptr, "print this", flag(&Options::help), 'h'}}},
  };
}

void check(const Options& o) {
  if (o.bundles.empty()) misuse("no bundle; give folders made by t5g2-export (see t5g2-bench --help)");
  if (o.profile && (o.bundles.size() > 1 || o.threads.size() > 1 || !o.sources || o.sources->size() > 1)) {
    misuse("--profile: give one bundle, one number of --threads and one --source with it");
  }
}

constexpr const char* kUsage =
    "usage: t5g2-bench BUNDLE... [options]\n"
    "\n"
    "Measure the speed and memory of bundles that t5g2-export made: medians, and half the range between the\n"
    "quartiles after a +-. Progress goes to stderr.\n";

constexpr const char* kNotes = R"(
What the figures are
  encode         source tokens a second, without pictures: encoder, and cross K/V of every decoder layer
  decode         target tokens a second, one at a time, all logits computed and the likeliest token chosen
  picture        seconds of the vision tower for one picture
  first token    from a source's ids (and pixels) to the first token chosen
  load           open the bundle, its hashes known: warm from the page cache, cold after its files were dropped from it;
                 cold first token is from there to the first token, reading the file included
  MB a token     weights, scales, cross K/V and self cache that a decoder step reads; native bundles only
  % of bandwidth its share of what the same number of threads reads from memory in a plain loop, in huge pages; more
                 than 100 % where caches hold the model
  energy         where the machine has a counter: RAPL, or a battery that is discharging

Exit codes
  0; 1 for an error; 2 for a usage error; 141 when nobody reads the output any more.

Examples
  t5g2-bench out/270m-int4
  t5g2-bench out/270m-int4 out/270m-int8 --threads 1,2,4 --source 64,512,2048 --depth 0,256 --output json
  t5g2-bench out/270m-int4 --threads 1 --source 512 --profile profile.etdump
)";

}  // namespace

Options parse(int argc, const char* const* argv) {
  Options options;
  cli::read_words(argc, argv, groups(options), [&](const std::string& word) { options.bundles.push_back(word); });
  if (!options.help && !options.version) check(options);
  return options;
}

std::string help_text() {
  Options unset;
  return kUsage + cli::explain(groups(unset)) + kNotes;
}

}  // namespace t5g2::bench
