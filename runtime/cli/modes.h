// What the program does once it knows its options, one file each. They return the exit code and throw Error.

#pragma once

#include "answer.h"
#include "options.h"

namespace t5g2::cli {

// With --verbose, these say on stderr what they have before them.
Answerer open_bundle(const Options& options);
void describe(const Session& session, const Options& options);
void describe(const Generation& generation, const Options& options);

int run_once(const Options& options);
int run_prompts(const Options& options);
int run_jsonl(const Options& options);
int run_interactive(const Options& options);

}  // namespace t5g2::cli
