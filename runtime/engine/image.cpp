#include "image.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "error.h"

namespace t5g2 {
namespace {

constexpr int kChannels = 3;
constexpr int kWeightBits = 22;  // a weight of 1 is 2^22: with 8 bits of value and a doubled sum still a positive int32

// Along one axis: each output is a weighted mean of the inputs from `first` on, `count` of them.
struct Window {
  int32_t first, count;
  const int32_t* weights;
};

// The windows of all outputs. Sizes that are equal give weights of 1 and 0, hence the input unchanged.
class Windows {
 public:
  Windows(int64_t inputs, int64_t outputs) {
    const double scale = double(inputs) / double(outputs);
    const double support = std::max(scale, 1.0);  // half the width of the triangle: when shrinking, all inputs count
    weights_.reserve(size_t(outputs * (int64_t(2 * support) + 2)));
    windows_.reserve(size_t(outputs));
    std::vector<double> exact;
    for (int64_t i = 0; i < outputs; ++i) {
      // In double and in this order, as Pillow rounds: built with -ffp-contract=off.
      const double center = (double(i) + 0.5) * scale;
      const int64_t first = std::max(int64_t(center - support + 0.5), int64_t(0));
      const int64_t last = std::min(int64_t(center + support + 0.5), inputs);
      exact.clear();
      double sum = 0;
      for (int64_t j = 0; j < last - first; ++j) {
        const double distance = std::abs((double(j + first) - center + 0.5) * (1.0 / support));
        exact.push_back(distance < 1 ? 1 - distance : 0);
        sum += exact.back();
      }
      windows_.push_back({int32_t(first), int32_t(last - first), nullptr});
      for (const double weight : exact) weights_.push_back(int32_t(0.5 + weight / sum * (1 << kWeightBits)));
      longest_ = std::max(longest_, last - first);
    }
    const int32_t* weights = weights_.data();
    for (Window& window : windows_) {
      window.weights = weights;
      weights += window.count;
    }
  }
  Windows(const Windows&) = delete;
  Windows& operator=(const Windows&) = delete;

  const std::vector<Window>& all() const { return windows_; }
  int64_t longest() const { return longest_; }

 private:
  std::vector<Window> windows_;
  std::vector<int32_t> weights_;
  int64_t longest_ = 0;
};

constexpr int32_t kHalf = 1 << (kWeightBits - 1);

// Weights that round up can add to more than 1.
uint8_t to_byte(int32_t sum) { return uint8_t(std::min(sum >> kWeightBits, 255)); }

// The rows of an image, RGB.
class Rows {
 public:
  explicit Rows(const ImageView& image) : image_(image), opaque_(image.channels == 4 ? size_t(image.width * kChannels) : 0) {}

  // Valid until the next call.
  const uint8_t* operator()(int64_t y) {
    const uint8_t* row = image_.pixels + size_t(y) * image_.stride;
    if (image_.channels == kChannels) return row;
    uint8_t* to = opaque_.data();
    for (int64_t x = 0; x < image_.width; ++x, row += 4) {
      const int alpha = row[3];
      for (int c = 0; c < kChannels; ++c) {
        const int over_white = row[c] * alpha + 255 * (255 - alpha) + 128;
        *to++ = uint8_t((over_white + (over_white >> 8)) >> 8);  // divided by 255 and rounded
      }
    }
    return opaque_.data();
  }

 private:
  ImageView image_;
  std::vector<uint8_t> opaque_;
};

// Resizes a row.
void resize_row(const uint8_t* row, const Windows& windows, uint8_t* out) {
  for (const Window& window : windows.all()) {
    const uint8_t* pixel = row + int64_t(window.first) * kChannels;
    int32_t red = kHalf, green = kHalf, blue = kHalf;
    for (int32_t i = 0; i < window.count; ++i, pixel += kChannels) {
      const int32_t weight = window.weights[i];
      red += pixel[0] * weight;
      green += pixel[1] * weight;
      blue += pixel[2] * weight;
    }
    *out++ = to_byte(red);
    *out++ = to_byte(green);
    *out++ = to_byte(blue);
  }
}

// Blends the rows of a window, `size` bytes each, into one. sums: memory for `size` numbers.
template <class RowAt>
void blend_rows(const Window& window, RowAt&& row_at, int64_t size, int32_t* sums, uint8_t* out) {
  std::fill_n(sums, size, kHalf);
  for (int32_t i = 0; i < window.count; ++i) {
    const uint8_t* row = row_at(int64_t(window.first) + i);
    const int32_t weight = window.weights[i];
    for (int64_t x = 0; x < size; ++x) sums[x] += row[x] * weight;
  }
  for (int64_t x = 0; x < size; ++x) out[x] = to_byte(sums[x]);
}

// The values that the 256 bytes stand for, rounded to float where the processor does: after the scale, the difference and
// the quotient.
std::array<float, 256> table(float mean, float std) {
  std::array<float, 256> values;
  for (int i = 0; i < 256; ++i) {
    const float scaled = float(i * (1 / 255.0));
    const float difference = scaled - mean;
    values[i] = difference / std;
  }
  return values;
}

void check(const ImageView& image, const ImageSettings& settings) {
  const int64_t width = image.width, height = image.height;
  if (settings.side < 1) misuse("side: ", settings.side, " pixels; give a number from 1 up");
  for (int c = 0; c < kChannels; ++c) {
    if (!std::isfinite(settings.mean[c])) misuse("mean: ", settings.mean[c], "; give finite numbers");
    if (!std::isfinite(settings.std[c]) || settings.std[c] == 0) {
      misuse("std: ", settings.std[c], "; give finite numbers other than 0");
    }
  }
  if (width < 1 || height < 1) {
    fail("the image is ", width, " x ", height, " pixels; give one with at least one pixel");
  }
  if (width > kMaxImageSide || height > kMaxImageSide || width * height > kMaxImagePixels) {
    fail("the image is ", width, " x ", height, " pixels, more than the limit of ", kMaxImagePixels, " in all and ",
         kMaxImageSide, " a side; scale it down");
  }
  if (image.channels != 3 && image.channels != 4) misuse("channels: ", image.channels, "; give 3 for RGB or 4 for RGBA");
  if (image.stride < size_t(width) * size_t(image.channels)) {
    misuse("stride: ", image.stride, " bytes, and a row has ", width * image.channels, "; give the bytes between two rows");
  }
  if (!image.pixels) misuse("the image's pixels are NULL; give their address");
}

}  // namespace

void to_pixels(const ImageView& image, const ImageSettings& settings, float* out) {
  check(image, settings);
  const int64_t width = image.width, height = image.height, side = settings.side, size = side * kChannels;
  const Windows columns(width, side), rows(height, side);
  std::array<std::array<float, 256>, kChannels> tables;
  for (int c = 0; c < kChannels; ++c) tables[c] = table(settings.mean[c], settings.std[c]);

  // One direction is resized and rounded to bytes, then the other. Pillow, from 13.0 on, begins with the columns of pictures
  // that shrink in height by more than twice as many pixels as in width; which comes first shows in the last bit.
  const bool columns_first = height > side && height - side > 2 * (width - side);
  Rows image_rows(image);
  std::vector<int32_t> sums(size_t((columns_first ? width : side) * kChannels));
  std::vector<uint8_t> blended(columns_first ? sums.size() : 0), resized(static_cast<size_t>(size));
  // Rows first: those of one window are kept, row y at y modulo their number.
  const int64_t kept = columns_first ? 0 : rows.longest();
  std::vector<uint8_t> ring(size_t(kept * size));
  int64_t next = 0;

  for (const Window& window : rows.all()) {
    if (columns_first) {
      blend_rows(window, image_rows, width * kChannels, sums.data(), blended.data());
      resize_row(blended.data(), columns, resized.data());
    } else {
      const auto ring_row = [&](int64_t y) { return ring.data() + y % kept * size; };
      for (; next < int64_t(window.first) + window.count; ++next) resize_row(image_rows(next), columns, ring_row(next));
      blend_rows(window, ring_row, size, sums.data(), resized.data());
    }
    for (int64_t x = 0; x < side; ++x) {
      for (int c = 0; c < kChannels; ++c) out[c * side * side + x] = tables[c][resized[x * kChannels + c]];
    }
    out += side;
  }
}

}  // namespace t5g2
