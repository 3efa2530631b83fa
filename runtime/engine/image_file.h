// JPEG and PNG files to upright RGB pictures, byte for byte as load_image of runtime/images.py gives them for a path. For the
// command line: an app decodes with what its system has. Needs libjpeg, libpng and zlib.
//
// As there, a file's transparency is dropped: the hidden colours show.

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace t5g2 {

struct Picture {
  int32_t width, height;
  std::vector<uint8_t> rgb;  // [height, width, 3]
};

// A picture of more pixels is refused before it is decoded.
constexpr int64_t kMaxPicturePixels = 89'478'485;

// Throws Error naming the file: absent or unreadable, of another format, damaged, truncated, or too large.
Picture read_image(const std::string& path);

// The same for a file's content; `name` is what messages call it.
Picture decode_image(std::span<const uint8_t> file, const std::string& name);

}  // namespace t5g2
