// A file of prompts, answered one a line.

#include "console.h"
#include "modes.h"

namespace t5g2::cli {
namespace {

// As the help describes it.
std::string escaped(std::string_view text) {
  std::string line;
  for (const char c : text) {
    if (c == '\n') {
      line += "\\n";
    } else if (c == '\r') {
      line += "\\r";
    } else if (c == '\\') {
      line += "\\\\";
    } else {
      line += c;
    }
  }
  return line;
}

}  // namespace

int run_prompts(const Options& options) {
  Lines lines(*options.prompts);
  Input input;
  input.pictures = read_pictures(options.images);
  Answerer answerer = open_bundle(options);
  bool failed = false;
  while (auto line = lines.next()) {
    std::string answer;
    try {
      input.text = std::move(*line);
      const Session session = answerer.encode(input);
      describe(session, options);
      const auto generation =
          answerer.answer(session, options.generation, [&](const Token& token) { answer += escaped(token.text); });
      describe(generation, options);
    } catch (const Error& error) {
      if (error.kind() == Error::Kind::kUsage) throw;  // an option, which is wrong for every line
      say_error(join(lines.where(), ": ", error.what()));
      answer.clear();
      failed = true;
    }
    print(answer + "\n");
  }
  if (options.stats) print_stats(answerer.engine(), answerer.stats());
  return failed;
}

}  // namespace t5g2::cli
