// One source: an answer, the scores of given targets, or the encoder's states.

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <span>
#include <utility>

#include "console.h"
#include "interrupt.h"
#include "modes.h"
#include "npy.h"
#include "score.h"
#include "settings.h"

namespace t5g2::cli {
namespace {

Input read_input(const Options& options) {
  Input input;
  if (options.prompt) {
    input.text = options.prompt;
  } else if (options.ids) {
    input.ids = ids_of("--ids", *options.ids);
  } else if (options.file && *options.file != "-") {
    input.text = read_text(*options.file);
  } else if (!options.session) {
    if (isatty(STDIN_FILENO)) misuse("no prompt; give --prompt TEXT, --file FILE, or pipe a text in");
    input.text = read_text("-");
    if (input.text->empty()) misuse("no prompt, stdin is empty; give --prompt TEXT, --file FILE, or pipe a text in");
  }
  input.pictures = read_pictures(options.images);
  return input;
}

// Whether targets are ids: where the source is, and in a bundle without a tokenizer, whose session files may be asked too.
bool ids_only(const Engine& engine, const Options& options) { return options.ids || !engine.info().has_tokenizer; }

void print_scores(const Engine& engine, const Session& session, const Options& options) {
  std::vector<std::pair<double, std::string>> scores;
  for (const std::string& target : options.targets) {
    const std::vector<int32_t> ids = ids_only(engine, options) ? ids_of("--score", target) : take(engine.target_ids(target));
    scores.emplace_back(score(engine, session, ids), target);
  }
  std::stable_sort(scores.begin(), scores.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  for (const auto& [logprob, target] : scores) {
    char number[32];
    std::snprintf(number, sizeof(number), "%.6f", logprob);
    print(join(number, "\t", target, "\n"));
  }
}

void write_states(const Session& session, const Options& options) {
  const std::vector<float> states = take(session.states(options.pooled));
  const size_t tokens = take(session.ids()).size();
  const Uninterrupted whole;
  if (options.pooled) {
    write_npy(*options.states, states, std::array{states.size()});
  } else {
    write_npy(*options.states, states, std::array{tokens, states.size() / tokens});
  }
}

void print_answer(Answerer& answerer, const Session& session, const Options& options) {
  const bool ids = ids_only(answerer.engine(), options);
  bool first = true;
  const Generation generation = answerer.answer(session, options.generation, [&](const Token& token) {
    if (!ids) return print(token.text);
    if (token.id < 0) return;  // only text, which had been held back
    print(join(std::exchange(first, false) ? "" : " ", token.id));
  });
  print("\n");
  describe(generation, options);
}

}  // namespace

int run_once(const Options& options) {
  const Input input = read_input(options);
  Answerer answerer = open_bundle(options);
  const Engine& engine = answerer.engine();
  const Session session = options.session ? take(Session::load(engine, *options.session)) : answerer.encode(input);
  describe(session, options);
  if (options.save_session) {
    const Uninterrupted whole;
    take(session.save(*options.save_session));
  }
  if (options.states) {
    write_states(session, options);
  } else if (!options.targets.empty()) {
    print_scores(engine, session, options);
  } else {
    print_answer(answerer, session, options);
  }
  if (options.stats) print_stats(engine, answerer.stats());
  return 0;
}

}  // namespace t5g2::cli
