// The options of a generation by name: the command line, /set of the interactive loop and JSON lines share them.

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "command_line.h"
#include "t5g2.hpp"

namespace t5g2::cli {

struct Setting {
  using Member = std::variant<int32_t GenerationOptions::*, int64_t GenerationOptions::*, float GenerationOptions::*,
                              bool GenerationOptions::*, std::string GenerationOptions::*,
                              std::vector<int32_t> GenerationOptions::*, std::vector<std::string> GenerationOptions::*>;

  const char* field;     // in t5g2_generation_options and in JSON
  const char* option;    // on the command line and in /set
  const char* argument;  // what it takes, for the help; nullptr: a flag, which turns the field to what is not its default
  const char* help;
  Member member;
};

std::span<const Setting> settings();
const Setting* find_setting(std::string_view option);  // nullptr: there is none

// Sets what `text` says: a list of ids replaces the one before, a string joins those before. Throws Error(kUsage), which calls
// the option `name`.
void set(const Setting& setting, GenerationOptions& options, std::string_view name, const std::string& text);

void set_flag(const Setting& setting, GenerationOptions& options, bool on);

// How a value is written; "" for what is empty.
std::string shown(const Setting& setting, const GenerationOptions& options);

}  // namespace t5g2::cli
