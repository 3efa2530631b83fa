// The encoder and the decoder step of a bundle, by backend: what each keeps of a source and of a target, and in which layout.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "bundle.h"
#include "pages.h"
#include "program.h"

namespace t5g2 {

struct EncodedSource {
  std::vector<int32_t> ids;
  Pages cross;                // cross K/V of every decoder layer, in the program's own layout
  std::vector<float> states;  // [ids, hidden_size]
};

// Called with the logits [rows, vocab_size] of a step, which are the program's memory: may be written, not kept.
using ReadLogits = std::function<void(std::span<float> logits)>;

class TextProgram {
 public:
  // tracer: see Program.
  static std::unique_ptr<TextProgram> open(const Bundle& bundle, executorch::runtime::EventTracer* tracer = nullptr);
  virtual ~TextProgram() = default;

  // features: image features [ids, hidden_size], read at image tokens only; null for a bundle without vision.
  virtual EncodedSource encode(std::vector<int32_t> ids, float* features) = 0;

  // Feeds target ids that start at `position`, at most max_rows of them. cache: what earlier steps of this target left,
  // zeros at first; self_cache_bytes of the manifest. One call at a time, `read` included.
  virtual void step(const EncodedSource& source, Pages& cache, std::span<const int32_t> ids, int64_t position,
                    const ReadLogits& read) = 0;
};

}  // namespace t5g2
