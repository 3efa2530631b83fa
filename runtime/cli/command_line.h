// The command line of a program: a table of its options, read and explained.

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace t5g2::cli {

struct Option {
  std::string name;      // without the dashes
  const char* argument;  // what it takes, for the help; nullptr: a flag
  std::string help;
  std::function<void(const std::string& value)> set;
  char letter = 0;       // the short form
};

struct OptionGroup {
  const char* title;
  std::vector<Option> options;
};

// Reads the words after the program's name: sets the options, and gives the other words to `operand`. Returns the names of the
// options that were given. Throws Error(kUsage).
std::vector<std::string> read_words(int argc, const char* const* argv, const std::vector<OptionGroup>& groups,
                                    const std::function<void(const std::string& word)>& operand);

// The options in columns, as --help shows them.
std::string explain(const std::vector<OptionGroup>& groups);

// Numbers in texts. Throw Error(kUsage), which calls the text's option `name`.
int64_t whole_number(std::string_view name, const std::string& text, int64_t lowest, int64_t highest);
std::vector<int32_t> ids_of(std::string_view name, const std::string& text);  // between spaces or commas

}  // namespace t5g2::cli
