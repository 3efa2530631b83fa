// One encoded source, asked any number of targets.

#include <unistd.h>

#include <cstdio>
#include <optional>
#include <utility>

#include "console.h"
#include "interrupt.h"
#include "modes.h"
#include "settings.h"

namespace t5g2::cli {
namespace {

constexpr const char* kAskForSource = "The first line is the source; see /help for other ways to give one.\n";
constexpr const char* kAskForTargets = "Each line begins a target, an empty one asks for all of it; see /help.\n";

constexpr const char* kHelp =
    R"(A line is the beginning of a target, which the model continues; an empty line asks for all of it.
  /source TEXT      read a new source
  /file FILE        read a new source from a UTF-8 file
  /image FILE       a picture for the next source, in which <start_of_image> stands for it; without FILE: forget them
  /save FILE        write the encoded source to a file
  /load FILE        go on with a source that was saved with this bundle
  /set NAME VALUE   set an option of the generation; without VALUE: back to its default; without NAME: show all
  /help             print this
  /quit             end, as the end of the input does
  //TEXT            a target that begins with /TEXT
Ctrl-C cancels the answer in progress, a second one quits.
)";

class Loop {
 public:
  explicit Loop(const Options& options) : options_(options), answerer_(open_bundle(options)), generation_(options.generation) {
    if (!answerer_.engine().info().has_tokenizer) {
      fail(options.bundle, ": has no tokenizer, and --interactive takes texts; give --ids instead");
    }
  }

  // The source of the command line, if it has one.
  void start() {
    if (options_.session) {
      load(*options_.session);
    } else {
      next_.pictures = read_pictures(options_.images);
      if (options_.prompt) read_source(*options_.prompt);
      if (options_.file) read_source(read_text(*options_.file));
    }
    if (terminal_ && !session_) remark(kAskForSource);
  }

  int run() {
    Lines lines("-");
    for (;;) {
      if (terminal_) remark(session_ ? "target> " : "source> ");
      const auto line = lines.next();
      if (!line || *line == "/quit") break;
      try {
        take_line(*line);
      } catch (const Error& error) {
        say_error(error.what());
        failed_ = true;
      }
    }
    return failed_ && !terminal_;
  }

 private:
  void take_line(const std::string& line) {
    if (line.starts_with("//")) return answer(line.substr(1));
    if (line.starts_with("/")) return command(line);
    if (session_) return answer(line);
    if (!line.empty()) return read_source(line);
    fail("no source yet; give it on a line or with /source, /file or /load");
  }

  void command(const std::string& line) {
    const size_t space = std::min(line.find(' '), line.size());
    const std::string name = line.substr(0, space), rest = line.substr(std::min(space + 1, line.size()));
    if (name == "/help") return remark(kHelp);
    if (name == "/set") return set(rest);
    if (name == "/image") return image(rest);
    if (name != "/source" && name != "/file" && name != "/save" && name != "/load") {
      fail(name, ": no such command; see /help (a target that begins with / is written with two)");
    }
    if (rest.empty()) fail(name, ": give ", name == "/source" ? "a text" : "a file", " after it");
    if (name == "/source") return read_source(rest);
    if (name == "/file") return read_source(read_text(rest));
    if (name == "/load") return load(rest);
    save(rest);
  }

  void read_source(const std::string& text) {
    next_.text = text;
    const double before = answerer_.stats().encode_seconds;
    const bool first = !session_;
    session_ = answerer_.encode(next_);
    next_ = {};
    char seconds[32];
    std::snprintf(seconds, sizeof(seconds), "%.3f", answerer_.stats().encode_seconds - before);
    remark(join("source: ", take(session_->ids()).size(), " tokens, encoded in ", seconds, " s\n"));
    describe(*session_, options_);
    if (terminal_ && first) remark(kAskForTargets);
  }

  void image(const std::string& path) {
    if (path.empty()) return next_.pictures.clear();
    next_.pictures.push_back(read_pictures({path})[0]);
    remark(join("pictures for the next source: ", next_.pictures.size(), "\n"));
  }

  void load(const std::string& path) {
    session_ = take(Session::load(answerer_.engine(), path));
    remark(join("source: ", take(session_->ids()).size(), " tokens, loaded\n"));
    describe(*session_, options_);
  }

  void save(const std::string& path) {
    if (!session_) fail("/save: no source yet");
    const Uninterrupted whole;
    take(session_->save(path));
  }

  void set(const std::string& words) {
    if (words.empty()) {
      for (const Setting& setting : settings()) {
        if (usable(setting)) remark(join("  ", setting.option, " ", shown(setting, generation_), "\n"));
      }
      return;
    }
    const size_t space = std::min(words.find(' '), words.size());
    const std::string name = words.substr(0, space);
    const Setting* setting = find_setting(name);
    if (!setting || !usable(*setting)) fail(name, ": no such option; /set alone shows them");
    GenerationOptions changed = generation_;
    if (space < words.size()) {
      cli::set(*setting, changed, name, words.substr(space + 1));
    } else {
      std::visit([&](auto member) { changed.*member = GenerationOptions().*member; }, setting->member);
    }
    if (session_) take(Generation::start(*session_, changed));  // checks it
    generation_ = std::move(changed);
  }

  // A line is the prefix, and there is no place for log-probabilities.
  static bool usable(const Setting& setting) {
    const std::string_view field = setting.field;
    return field != "logprobs" && field != "prefix_text" && field != "prefix_ids";
  }

  void answer(const std::string& prefix) {
    if (!session_) fail("no source yet; give it with /source, /file or /load");
    GenerationOptions options = generation_;
    options.prefix_text = prefix;
    const auto show = [](const Token& token) { print(token.text); };
    const Generation generation = answerer_.answer(*session_, options, show, true);
    print("\n");
    if (take(generation.result()).finish == T5G2_FINISH_CANCELLED) remark("cancelled\n");
    describe(generation, options_);
    if (options_.stats) print_stats(answerer_.engine(), std::exchange(answerer_.stats(), {}));
  }

  const Options& options_;
  const bool terminal_ = isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
  Answerer answerer_;
  GenerationOptions generation_;
  Input next_;  // pictures of the source to come
  std::optional<Session> session_;
  bool failed_ = false;
};

}  // namespace

int run_interactive(const Options& options) {
  Loop loop(options);
  loop.start();
  return loop.run();
}

}  // namespace t5g2::cli
