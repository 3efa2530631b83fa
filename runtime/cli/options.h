// The command line.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "t5g2.hpp"

namespace t5g2::cli {

struct Options {
  std::string bundle;

  // What is asked. In a path, - is stdin.
  std::optional<std::string> prompt, file, ids, session;
  std::vector<std::string> images;
  std::optional<std::string> prompts;
  bool jsonl = false, interactive = false;

  // What is wanted, beside or instead of an answer.
  std::optional<std::string> save_session, states;
  bool pooled = false;
  std::vector<std::string> targets;  // to score
  GenerationOptions generation;
  EngineOptions engine;
  bool stats = false, verbose = false;

  bool help = false, version = false;  // then nothing else is checked
};

// Throws Error(kUsage).
Options parse(int argc, const char* const* argv);

std::string help_text();

}  // namespace t5g2::cli
