// Which way up a picture is, from what its camera or its editor wrote beside the pixels.

#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace t5g2 {

// As EXIF counts: 1 (upright) to 8. `exif`: a TIFF structure, with or without "Exif\0\0" before it; `xmp`: asked where exif
// does not say. Either may be empty; what is damaged counts as upright.
int orientation(std::span<const uint8_t> exif, std::string_view xmp);

}  // namespace t5g2
