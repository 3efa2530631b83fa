#include "image_orientation.h"

#include <algorithm>
#include <optional>

namespace t5g2 {
namespace {

constexpr uint16_t kOrientationTag = 0x0112;

bool starts_with(std::span<const uint8_t> data, std::string_view prefix) {
  return data.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), data.begin(),
                                                    [](char a, uint8_t b) { return uint8_t(a) == b; });
}

// Bytes of one value of a TIFF field type; 0 for an unknown one.
size_t unit_size(uint16_t type) {
  switch (type) {
    case 1: case 2: case 6: case 7: return 1;    // byte, ASCII, signed byte, undefined
    case 3: case 8: return 2;                    // short, signed
    case 4: case 9: case 11: case 13: return 4;  // long, signed, float, directory
    case 5: case 10: case 12: case 16: return 8; // rational, signed, double, long of 8 bytes
    default: return 0;
  }
}

class Tiff {
 public:
  explicit Tiff(std::span<const uint8_t> data) : data_(data), little_(data.size() && data[0] == 'I') {}

  bool valid() const {
    using namespace std::string_view_literals;
    if (data_.size() < 8) return false;
    // The last two are wrong, and found in the wild.
    for (const std::string_view head : {"II\x2a\0"sv, "MM\0\x2a"sv, "II\0\x2a"sv, "MM\x2a\0"sv}) {
      if (starts_with(data_, head)) return true;
    }
    return false;
  }

  // Of the first directory; nothing where it has none. As Pillow reads damaged directories: a field that cannot be right is
  // passed over, and one whose value lies outside ends the directory.
  std::optional<int> orientation() const {
    size_t at = number(4, 4);
    if (at + 2 > data_.size()) return {};
    size_t left = number(at, 2), outside = 0;
    for (at += 2; left && at + 12 <= data_.size(); at += 12, --left) {
      const uint16_t type = uint16_t(number(at + 2, 2));
      const size_t unit = unit_size(type), size = unit * number(at + 4, 4);
      if (!size) continue;
      size_t value = at + 8;
      if (size > 4) {
        value = number(at + 8, 4);
        outside += size;
        if (outside > data_.size()) continue;
        if (value + size > data_.size()) return {};
      }
      if (number(at, 2) != kOrientationTag) continue;
      const bool integer = unit <= 4 && type != 1 && type != 2 && type != 7 && type != 11;
      return integer ? int(std::min<size_t>(number(value, unit), 9)) : 1;
    }
    return {};
  }

 private:
  size_t number(size_t at, size_t size) const {
    size_t value = 0;
    for (size_t i = 0; i < size; ++i) value = value << 8 | data_[little_ ? at + size - 1 - i : at + i];
    return value;
  }

  std::span<const uint8_t> data_;
  bool little_;
};

std::optional<int> orientation_of_exif(std::span<const uint8_t> exif) {
  constexpr std::string_view kPrefix("Exif\0\0", 6);
  for (int i = 0; i < 2 && starts_with(exif, kPrefix); ++i) exif = exif.subspan(kPrefix.size());
  if (exif.empty()) return {};
  const Tiff tiff(exif);
  return tiff.valid() ? tiff.orientation() : 1;
}

// The first tiff:Orientation="6" or <tiff:Orientation>6</...>.
int orientation_of_xmp(std::string_view xmp) {
  constexpr std::string_view kName = "tiff:Orientation";
  for (size_t at = 0; (at = xmp.find(kName, at)) != xmp.npos;) {
    at += kName.size();
    const std::string_view rest = xmp.substr(at);
    const size_t skip = rest.starts_with("=\"") ? 2 : rest.starts_with(">") ? 1 : 0;
    if (skip && rest.size() > skip && rest[skip] >= '0' && rest[skip] <= '9') return rest[skip] - '0';
  }
  return 1;
}

}  // namespace

int orientation(std::span<const uint8_t> exif, std::string_view xmp) {
  const std::optional<int> found = orientation_of_exif(exif);
  const int value = found ? *found : orientation_of_xmp(xmp);
  return value >= 1 && value <= 8 ? value : 1;
}

}  // namespace t5g2
