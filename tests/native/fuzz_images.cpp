// libFuzzer entry: any bytes as a JPEG or PNG file, and as a picture of any size that becomes pixels.
//
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/native/fuzz_images.cpp
//     runtime/engine/{image,image_file,image_jpeg,image_orientation,image_png,file}.cpp -ljpeg -lpng -lz -o fuzz_images
//   ./fuzz_images -rss_limit_mb=2048 -timeout=20 CORPUS
//
// An input is six bytes of settings, then the file.

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "runtime/engine/error.h"
#include "runtime/engine/image.h"
#include "runtime/engine/image_file.h"

namespace {

constexpr size_t kSettings = 6;

// Sizes of 1 to 32768, small ones as often as large ones.
int64_t size_of(uint8_t byte) { return ((byte & 15) + 16) * (int64_t(1) << (byte >> 4)) >> 4; }

void resize(const t5g2::ImageView& image, int side) {
  std::vector<float> out(size_t(side) * size_t(side) * 3);
  t5g2::to_pixels(image, {side, {0.5f, 0.4f, 0.3f}, {0.5f, 0.2f, 1.f}}, out.data());
}

// The bytes again and again, as a picture that ends where its last row does.
void resize_bytes(std::span<const uint8_t> settings, std::span<const uint8_t> bytes) {
  const int64_t width = size_of(settings[0]), height = size_of(settings[1]);
  const int channels = settings[2] & 1 ? 4 : 3, side = 1 + (settings[2] >> 2);
  const int64_t stride = width * channels + settings[3] % 8, size = (height - 1) * stride + width * channels;
  if (width * height > 1 << 15 || bytes.empty()) return;
  std::vector<uint8_t> pixels(static_cast<size_t>(size));
  for (size_t at = 0; at < pixels.size(); at += bytes.size()) {
    std::copy_n(bytes.begin(), std::min(bytes.size(), pixels.size() - at), pixels.begin() + ptrdiff_t(at));
  }
  resize({pixels.data(), width, height, channels, size_t(stride)}, side);
}

// Sets the checksums of a PNG's chunks right, which chance would not.
void mend(std::vector<uint8_t>& file) {
  for (size_t at = 8; at + 12 <= file.size();) {
    const size_t size = size_t(file[at]) << 24 | file[at + 1] << 16 | file[at + 2] << 8 | file[at + 3];
    if (size > file.size() - at - 12) return;
    const uLong sum = crc32(0, &file[at + 4], uInt(size + 4));
    for (int i = 0; i < 4; ++i) file[at + 8 + size + i] = uint8_t(sum >> (24 - 8 * i));
    at += size + 12;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < kSettings) return 0;
  const std::span<const uint8_t> settings(data, kSettings);
  std::vector<uint8_t> file(data + kSettings, data + size);
  resize_bytes(settings, file);
  if (settings[4] & 1 && !file.empty() && file[0] == 0x89) mend(file);
  try {
    const t5g2::Picture picture = t5g2::decode_image(file, "fuzzed");
    if (picture.rgb.size() != size_t(picture.width) * size_t(picture.height) * 3) std::abort();
    if (picture.rgb.size() > 1 << 20) return 0;
    resize({picture.rgb.data(), picture.width, picture.height, 3, size_t(picture.width) * 3}, 1 + settings[5] % 64);
  } catch (const t5g2::Error& error) {
    if (std::strchr(error.what(), '\n') || std::strncmp(error.what(), "fuzzed: ", 8)) std::abort();
  }
  return 0;
}
