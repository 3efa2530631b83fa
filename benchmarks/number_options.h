// The command line of the small benchmark programs: a bundle, then options that are numbers.

#pragma once

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <string>

namespace t5g2 {

using NumberOptions = std::map<std::string, long>;

// Reads `program BUNDLE [--option N] …` into the options, which hold their defaults, and calls measure(bundle, options).
// Returns the exit code; an error is one line on stderr.
template <class Measure>
int run_with_numbers(const char* program, int argc, char** argv, NumberOptions options, const Measure& measure) {
  for (int i = 2; i + 1 < argc; i += 2) {
    if (!options.count(argv[i])) {
      std::fprintf(stderr, "%s: unknown option %s\n", program, argv[i]);
      return 2;
    }
    options[argv[i]] = std::atol(argv[i + 1]);
  }
  if (argc < 2 || argc % 2) {
    std::fprintf(stderr, "usage: %s BUNDLE [--source 512] …\n", program);
    return 2;
  }
  try {
    measure(argv[1], options);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", program, error.what());
    return 1;
  }
}

}  // namespace t5g2
