// Pictures to pixels for the vision tower, bit for bit as Pillow and runtime/images.py make them.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace t5g2 {

// A picture becomes side x side pixels, and each channel (x / 255 - mean) / std.
struct ImageSettings {
  int32_t side;
  std::array<float, 3> mean, std;
};

// A decoded picture, 8 bits a channel, rows from top to bottom.
struct ImageView {
  const uint8_t* pixels;
  int64_t width, height;
  int channels;   // 3: RGB. 4: RGBA, laid over white
  size_t stride;  // bytes from one row to the next
};

// The largest picture taken, in pixels and along one side.
constexpr int64_t kMaxImagePixels = int64_t(1) << 30, kMaxImageSide = int64_t(1) << 20;

// Writes [3, side, side]: resized bilinearly with antialiasing, without keeping the aspect ratio, then normalised. Takes
// memory of up to 30 bytes a column and a row of the image, and of some 50 times side. Throws Error for a view or settings
// that make no sense, before it allocates anything.
void to_pixels(const ImageView& image, const ImageSettings& settings, float* out);

}  // namespace t5g2
