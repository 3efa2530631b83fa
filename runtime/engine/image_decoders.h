// The decoders behind image_file.h, one file each.

#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "image_file.h"

namespace t5g2 {

// As it is in the file; `orientation` is to be applied.
struct Decoded {
  Picture picture;
  int orientation;
};

Decoded decode_jpeg(std::span<const uint8_t> file, const std::string& name);
Decoded decode_png(std::span<const uint8_t> file, const std::string& name);

[[noreturn]] void fail_damaged(const std::string& name, const std::string& reason);

// Throws Error for a picture of more than kMaxPicturePixels, or longer on one side than to_pixels takes.
void check_size(const std::string& name, int64_t width, int64_t height);

}  // namespace t5g2
