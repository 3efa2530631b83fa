#include "command_line.h"

#include <algorithm>
#include <charconv>

#include "console.h"

namespace t5g2::cli {
namespace {

const Option& find(const std::vector<OptionGroup>& groups, const std::string& given) {
  for (const OptionGroup& group : groups) {
    for (const Option& option : group.options) {
      if (given == "--" + option.name || (option.letter && given == std::string{'-', option.letter})) return option;
    }
  }
  misuse(given, ": no such option (see ", kProgram, " --help)");
}

// Appends words to lines of at most `width` columns, the first of which is at `column` already.
void wrap(std::string& out, std::string_view words, size_t column, size_t indent, size_t width) {
  bool first = true;
  while (!words.empty()) {
    const size_t length = std::min(words.find(' '), words.size());
    if (!first && column + 1 + length > width) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (!first) {
      out += ' ';
      ++column;
    }
    out += words.substr(0, length);
    column += length;
    words.remove_prefix(std::min(length + 1, words.size()));
    first = false;
  }
}

}  // namespace

std::vector<std::string> read_words(int argc, const char* const* argv, const std::vector<OptionGroup>& groups,
                                    const std::function<void(const std::string& word)>& operand) {
  std::vector<std::string> given;
  bool only_operands = false;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (only_operands || word.empty() || word[0] != '-' || word == "-") {
      operand(word);
    } else if (word == "--") {
      only_operands = true;
    } else {
      const size_t equals = word.starts_with("--") ? word.find('=') : word.npos;
      const std::string name = word.substr(0, equals);
      const Option& option = find(groups, name);
      std::string value;
      if (option.argument) {
        if (equals == word.npos && i + 1 == argc) misuse(name, ": give ", option.argument, " after it");
        value = equals == word.npos ? argv[++i] : word.substr(equals + 1);
      } else if (equals != word.npos) {
        misuse(name, ": takes no value; leave '", word.substr(equals), "' out");
      }
      option.set(value);
      given.push_back(option.name);
    }
  }
  return given;
}

std::string explain(const std::vector<OptionGroup>& groups) {
  constexpr size_t kWidth = 110, kColumn = 30;
  std::string out;
  for (const OptionGroup& group : groups) {
    out += join("\n", group.title, "\n");
    for (const Option& option : group.options) {
      std::string line = join("  --", option.name, option.argument ? " " : "", option.argument ? option.argument : "");
      if (option.letter) line += join(", -", option.letter);
      line.resize(std::max(line.size() + 1, kColumn), ' ');
      const size_t column = line.size();
      wrap(line, option.help, column, kColumn, kWidth);
      out += line + "\n";
    }
  }
  return out;
}

int64_t whole_number(std::string_view name, const std::string& text, int64_t lowest, int64_t highest) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value);
  if (stopped != end || error == std::errc::invalid_argument) misuse(name, " '", text, "': give a whole number");
  if (error == std::errc::result_out_of_range || value < lowest || value > highest) {
    misuse(name, " '", text, "': give a whole number from ", lowest, " to ", highest);
  }
  return value;
}

std::vector<int32_t> ids_of(std::string_view name, const std::string& text) {
  constexpr const char* kBetween = ", \t\r\n";
  std::vector<int32_t> ids;
  for (size_t at = 0; (at = text.find_first_not_of(kBetween, at)) != text.npos;) {
    const size_t end = std::min(text.find_first_of(kBetween, at), text.size());
    int32_t id = 0;
    const auto [stopped, error] = std::from_chars(text.data() + at, text.data() + end, id);
    if (stopped != text.data() + end || error != std::errc()) {
      misuse(name, " '", text, "': give whole numbers separated by spaces");
    }
    ids.push_back(id);
    at = end;
  }
  return ids;
}

}  // namespace t5g2::cli
