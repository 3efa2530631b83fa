#include "image_file.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string_view>
#include <utility>

#include "error.h"
#include "file.h"
#include "image.h"
#include "image_decoders.h"

namespace t5g2 {
namespace {

constexpr size_t kMaxFileBytes = size_t(1) << 30;

using namespace std::string_view_literals;

// What a format's files begin with, `at` bytes in.
struct Signature {
  size_t at;
  std::string_view bytes;
  const char* format;
};

constexpr Signature kJpeg = {0, "\xff\xd8\xff"sv, "JPEG"}, kPng = {0, "\x89PNG\r\n\x1a\n"sv, "PNG"};
constexpr Signature kOthers[] = {
    {8, "WEBP"sv, "WebP"},     {0, "GIF8"sv, "GIF"},      {4, "ftypavif"sv, "AVIF"}, {4, "ftypheic"sv, "HEIC"},
    {4, "ftypheix"sv, "HEIC"}, {4, "ftypmif1"sv, "HEIC"}, {0, "II*\0"sv, "TIFF"},    {0, "MM\0*"sv, "TIFF"},
    {0, "BM"sv, "BMP"},
};

bool has(std::span<const uint8_t> file, const Signature& signature) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  return text.size() >= signature.at && text.substr(signature.at).starts_with(signature.bytes);
}

// Turned and mirrored as EXIF's orientation says.
Picture upright(Picture picture, int orientation) {
  if (orientation == 1) return picture;
  const bool turned = orientation >= 5;  // rows become columns
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const ptrdiff_t width = picture.width, height = picture.height;
  const ptrdiff_t right = from_right ? -1 : 1, down = from_bottom ? -width : width;  // steps through the picture, in pixels
  const ptrdiff_t first = (from_right ? width - 1 : 0) + (from_bottom ? (height - 1) * width : 0);
  Picture out{picture.width, picture.height, std::vector<uint8_t>(picture.rgb.size())};
  if (turned) std::swap(out.width, out.height);
  const ptrdiff_t step = turned ? down : right, next_row = turned ? right : down;
  // In squares: a whole row of a turned picture would take each pixel from another line of the cache.
  constexpr ptrdiff_t kSquare = 32;
  for (ptrdiff_t top = 0; top < out.height; top += kSquare) {
    for (ptrdiff_t left = 0; left < out.width; left += kSquare) {
      for (ptrdiff_t y = top; y < std::min<ptrdiff_t>(top + kSquare, out.height); ++y) {
        for (ptrdiff_t x = left; x < std::min<ptrdiff_t>(left + kSquare, out.width); ++x) {
          std::memcpy(&out.rgb[size_t(y * out.width + x) * 3], &picture.rgb[size_t(first + y * next_row + x * step) * 3], 3);
        }
      }
    }
  }
  return out;
}

}  // namespace

Picture read_image(const std::string& path) {
  const std::string file = read_file(path, kMaxFileBytes);
  return decode_image({reinterpret_cast<const uint8_t*>(file.data()), file.size()}, path);
}

Picture decode_image(std::span<const uint8_t> file, const std::string& name) {
  if (!has(file, kJpeg) && !has(file, kPng)) {
    for (const Signature& other : kOthers) {
      if (has(file, other)) fail(name, ": a ", other.format, " file, not a JPEG or PNG; convert it to one of them");
    }
    fail(name, ": not a JPEG or PNG; check that it is the right file, or convert it to one of them");
  }
  Decoded decoded = has(file, kJpeg) ? decode_jpeg(file, name) : decode_png(file, name);
  return upright(std::move(decoded.picture), decoded.orientation);
}

void fail_damaged(const std::string& name, const std::string& reason) {
  fail(name, ": damaged image file (", reason, "); open it in an image viewer and save it again as PNG or JPEG");
}

void check_size(const std::string& name, int64_t width, int64_t height) {
  if (width * height > kMaxPicturePixels) {
    fail(name, ": ", width, " x ", height, " pixels, more than the limit of ", kMaxPicturePixels, "; scale the image down");
  }
  if (width > kMaxImageSide || height > kMaxImageSide) {
    fail(name, ": ", width, " x ", height, " pixels, more than the limit of ", kMaxImageSide, " a side; scale the image down");
  }
}

}  // namespace t5g2
