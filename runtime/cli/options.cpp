#include "options.h"

#include <algorithm>
#include <variant>

#include "../engine/error.h"
#include "command_line.h"
#include "settings.h"

namespace t5g2::cli {
namespace {

Option option_of(const Setting& setting, Options& options) {
  std::string help = setting.help;
  if (const std::string value = shown(setting, {}); setting.argument && !value.empty()) help += join(" (default: ", value, ")");
  const std::string name = join("--", setting.option);
  const auto apply = [&setting, &options, name](const std::string& value) {
    if (setting.argument) {
      set(setting, options.generation, name, value);
    } else {
      set_flag(setting, options.generation, true);
    }
  };
  return {setting.option, setting.argument, help, apply};
}

// They set `options`, which outlives them.
std::vector<OptionGroup> groups(Options& options) {
  const auto flag = [&options](bool Options::*member) {
    return [&options, member](const std::string&) { options.*member = true; };
  };
  const auto text = [&options](std::optional<std::string> Options::*member) {
    return [&options, member](const std::string& value) { options.*member = value; };
  };
  const auto list = [&options](std::vector<std::string> Options::*member) {
    return [&options, member](const std::string& value) { (options.*member).push_back(value); };
  };
  std::vector<Option> generation;
  for (const Setting& setting : settings()) generation.push_back(option_of(setting, options));
  return {
      {"the source (one of these; without any, a text is read from stdin)",
       {{"prompt", "TEXT", "the source text, with one <start_of_image> in it per --image", text(&Options::prompt)},
        {"file", "FILE", "read the source text from a UTF-8 file; - is stdin", text(&Options::file)},
        {"ids", "IDS", "source token ids, separated by spaces, as they are; ids are printed, and TARGET of --score is ids",
         text(&Options::ids)},
        {"session", "FILE", "a source that --save-session encoded with this bundle", text(&Options::session)},
        {"image", "FILE", "a picture, JPEG or PNG; may be repeated", list(&Options::images)}}},
      {"many sources",
       {{"prompts", "FILE",
         "a source text on each line, - is stdin. Answers come one a line, in order, with \\n for a line end, \\r for a "
         "carriage return and \\\\ for a backslash. An answer that fails is an empty line. Each prompt goes with all --image files",
         text(&Options::prompts)},
        {"jsonl", nullptr,
         "a JSON object on each line of stdin, or of --file, and one on each line of the output. See below",
         flag(&Options::jsonl)},
        {"interactive", nullptr, "ask one source many targets. See below", flag(&Options::interactive), 'i'}}},
      {"generation", std::move(generation)},
      {"instead of an answer",
       {{"score", "TARGET",
         "print the natural log of the model's probability of TARGET as the whole answer, a tab and TARGET; may be repeated: "
         "likeliest first",
         list(&Options::targets)},
        {"states", "FILE", "write the encoder's output to an .npy file: float32 [source tokens, hidden size]",
         text(&Options::states)},
        {"pooled", nullptr, "with --states: the mean over the tokens, [hidden size]", flag(&Options::pooled)}}},
      {"other",
       {{"save-session", "FILE", "write the encoded source to a file, then go on", text(&Options::save_session)},
        {"threads", "N", "CPU threads, 256 at most; 0: as many as ExecuTorch finds useful (default: 0)",
         [&options](const std::string& value) {
           options.engine.threads = int32_t(whole_number("--threads", value, 0, 256));
         }},
        {"cache-folder", "FOLDER",
         "remember there which files of bundles were checked against their hashes (default: $XDG_CACHE_HOME/t5g2 or "
         "~/.cache/t5g2)",
         [&options](const std::string& value) { options.engine.cache_folder = value; }},
        {"no-cache", nullptr, "remember it nowhere: hash the bundle at this start",
         [&options](const std::string&) { options.engine.cache_folder = ""; }},
        {"stats", nullptr, "afterwards, times in seconds, tokens a second and memory on stderr", flag(&Options::stats)},
        {"verbose", nullptr, "on stderr: the bundle, the kernels, the source's ids and why the answer ended",
         flag(&Options::verbose)},
        {"version", nullptr, "print the version", flag(&Options::version)},
        {"help", nullptr, "print this", flag(&Options::help), 'h'}}},
  };
}

int given(std::initializer_list<bool> options) { return int(std::count(options.begin(), options.end(), true)); }

// Refuses what would otherwise be ignored. generation: an option of the generation was given.
void check(const Options& o, bool generation) {
  if (o.bundle.empty()) misuse("no bundle; give a folder made by t5g2-export (see t5g2-run --help)");
  if (given({o.prompts.has_value(), o.jsonl, o.interactive}) > 1) misuse("give one of --prompts, --jsonl and --interactive");
  const int sources = given({o.prompt.has_value(), o.file.has_value(), o.ids.has_value(), o.session.has_value()});
  const int outputs = given({!o.targets.empty(), o.states.has_value()});
  if (sources > 1) misuse("give one of --prompt, --file, --ids and --session, not ", sources);
  if (o.session && !o.images.empty()) misuse("--image: the pictures of a --session are in it; leave them out");
  if (o.prompts && sources) misuse("--prompts: has the sources; leave --prompt, --file, --ids and --session out");
  if (o.jsonl && (sources != int(o.file.has_value()) || !o.images.empty())) {
    misuse("--jsonl: its lines have the sources and pictures; leave --prompt, --ids, --session and --image out");
  }
  if (o.interactive && (o.ids || outputs || o.save_session)) {
    misuse("--interactive: takes no --ids, --score, --states or --save-session; see its /help");
  }
  if (o.interactive && !(o.generation.prefix_text.empty() && o.generation.prefix_ids.empty())) {
    misuse("--prefix: with --interactive each line is one; leave it out");
  }
  if (o.interactive && o.file == "-") misuse("--file -: stdin has the lines of --interactive; give a file");
  if ((o.prompts || o.jsonl) && (outputs || o.save_session)) {
    misuse(o.jsonl ? "--jsonl" : "--prompts", ": takes no --score, --states or --save-session");
  }
  if (outputs > 1) misuse("give --score or --states, not both");
  if (outputs && generation) misuse("--score and --states generate nothing; leave the generation's options out");
  if (o.pooled && !o.states) misuse("--pooled: give --states FILE with it");
  if (o.generation.logprobs != -1 && !o.jsonl) misuse("--logprobs: give it with --jsonl, which has a place for them");
}

constexpr const char* kUsage =
    "usage: t5g2-run BUNDLE [options]\n"
    "\n"
    "Answer a prompt with a bundle that t5g2-export made. The answer goes to stdout as it is made, all else to\n"
    "stderr.\n";

constexpr const char* kNotes = R"(
JSON lines (--jsonl)
  In:   {"prompt": text} or {"ids": [ids]}, and as needed "id", "images": [files], "targets": [texts or lists
        of ids], and any option of t5g2_generation_options (t5g2.h) under its name there; the command line's
        options are their defaults.
  Out:  {"id", "text", "ids", "finish": "stop" or "length", "source_tokens"}
        with logprobs also "logprobs": [{"id", "logprob", "top": [{"id", "logprob"}]}]
        with beams also "beams": [{"text", "ids", "finish", "score"}], best first
        with targets instead {"id", "source_tokens", "scores": [log-probability of each as the whole answer]}
        where a line fails {"id", "error"}; the others are answered, and the exit code is 1.

Interactive (--interactive)
  T5Gemma 2 is an encoder-decoder: a document and the question about it are one source, which is read once.
  Each line is then the beginning of a target that the model continues; an empty line asks for all of it. The
  source is --prompt, --file or --session, or else the first line. /help names the commands that change the
  source and the options. Ctrl-C cancels the answer in progress, a second one quits. Lines may be piped in:
  then an error gives exit code 1 in the end.

Exit codes
  0; 1 for an error; 2 for a usage error; 130 when interrupted; 141 when nobody reads the output any more.

Examples
  t5g2-run out/nano-int4 --prompt 'ISO date: the 3rd of March 2021'
  t5g2-run out/nano-int4 --image number.png --prompt '<start_of_image> What number is shown?'
  t5g2-run out/nano-int4 --file long.txt --save-session long.session --stats
  echo '{"prompt": "ISO date: 3 March 2021", "logprobs": 3}' | t5g2-run out/nano-int4 --jsonl
)";

}  // namespace

Options parse(int argc, const char* const* argv) {
  Options options;
  bool has_bundle = false;
  const auto names = read_words(argc, argv, groups(options), [&](const std::string& word) {
    if (has_bundle) misuse("'", word, "': one bundle is taken, '", options.bundle, "'; a text goes after --prompt");
    options.bundle = word;
    has_bundle = true;
  });
  const bool generation = std::any_of(names.begin(), names.end(), [](const std::string& name) { return find_setting(name); });
  if (!options.help && !options.version) check(options, generation);
  return options;
}

std::string help_text() {
  Options unset;
  return kUsage + explain(groups(unset)) + kNotes;
}

}  // namespace t5g2::cli
