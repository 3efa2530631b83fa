// A program file and its methods, loaded by ExecuTorch: tensors in, tensors out, errors with what ExecuTorch said.

#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/runtime/core/event_tracer.h>

#include "planned_memory.h"

namespace t5g2 {

class Program {
 public:
  // Maps the file and loads the methods. tracer: told of every operator that runs, and outlives the program; null: none.
  // Throws Error naming the file.
  Program(const std::string& path, const std::vector<std::string>& methods,
          executorch::runtime::EventTracer* tracer = nullptr);

  // The outputs are the program's own memory: the next call overwrites them. One call at a time. Throws Error.
  std::vector<executorch::runtime::EValue> run(const std::string& method,
                                               const std::vector<executorch::runtime::EValue>& inputs);

 private:
  void load_methods();

  std::string path_;
  executorch::runtime::EventTracer* tracer_;
  std::map<std::string, std::unique_ptr<PlannedMemory>> memory_;  // of each method
  bool delegates_ = false;      // whether a method calls a backend, which keeps the thread pool it was loaded with
  const void* pool_ = nullptr;  // that one
  std::unique_ptr<executorch::extension::Module> module_;  // after the memory that its methods lie in: it goes first
};

// Loads a library of ExecuTorch's, such as a backend, which registers itself. Throws Error where it is not there.
void load_library(const char* name);

// How many threads the process's one pool has; setting it waits for program calls in progress.
int32_t thread_count();
void set_threads(int32_t threads);

}  // namespace t5g2
