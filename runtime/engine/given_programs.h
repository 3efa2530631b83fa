// A bundle's programs where the caller runs them: t5g2_programs of t5g2.h.

#pragma once

#include <memory>

#include "bundle.h"
#include "t5g2.h"
#include "text_program.h"

namespace t5g2 {

class GivenPrograms {
 public:
  // Throws Error where a call is missing.
  GivenPrograms(const Manifest& manifest, const t5g2_programs& programs);

  std::unique_ptr<TextProgram> text() const;
  // pixels: [3, side, side], normalised; features: [tokens_per_image, hidden_size], written. Throws Error with what the caller said.
  void vision(const float* pixels, float* features) const;

 private:
  const Manifest& manifest_;
  t5g2_programs programs_;
};

}  // namespace t5g2
