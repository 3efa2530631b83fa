// NumPy's file format for arrays, version 1.0.

#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace t5g2::cli {

// float32 of that shape. Throws Error naming the file, which appears whole or not at all.
void write_npy(const std::string& path, std::span<const float> values, std::span<const size_t> shape);

}  // namespace t5g2::cli
