// For test_engine_images.py: what the engine makes of a picture, raw on stdout. Errors go to stderr, with exit code 1.
//
//   image_cases pixels SIDE MEAN MEAN MEAN STD STD STD   stdin: width, height, channels, stride as int64, then the bytes;
//                                                        stdout: [3, SIDE, SIDE] float32
//   image_cases file PATH                                stdout: width, height as int64, then [height, width, 3] bytes

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "runtime/engine/error.h"
#include "runtime/engine/image.h"
#include "runtime/engine/image_file.h"

namespace {

void write(const void* data, size_t size) {
  if (std::fwrite(data, 1, size, stdout) != size) std::exit(3);
}

void pixels(char** arguments) {
  t5g2::ImageSettings settings{std::atoi(arguments[0]), {}, {}};
  for (int c = 0; c < 3; ++c) settings.mean[c] = std::strtof(arguments[1 + c], nullptr);
  for (int c = 0; c < 3; ++c) settings.std[c] = std::strtof(arguments[4 + c], nullptr);
  int64_t header[4];
  if (std::fread(header, 1, sizeof(header), stdin) != sizeof(header)) std::exit(3);
  std::vector<uint8_t> bytes, block(1 << 20);
  while (const size_t count = std::fread(block.data(), 1, block.size(), stdin)) {
    bytes.insert(bytes.end(), block.begin(), block.begin() + ptrdiff_t(count));
  }
  bytes.shrink_to_fit();
  std::vector<float> out(settings.side > 0 ? size_t(settings.side) * size_t(settings.side) * 3 : 0);
  t5g2::to_pixels({bytes.data(), header[0], header[1], int(header[2]), size_t(header[3])}, settings, out.data());
  write(out.data(), out.size() * sizeof(float));
}

void file(const char* path) {
  const t5g2::Picture picture = t5g2::read_image(path);
  const int64_t header[] = {picture.width, picture.height};
  write(header, sizeof(header));
  write(picture.rgb.data(), picture.rgb.size());
}

}  // namespace

int main(int count, char** arguments) {
  try {
    if (count == 9 && !std::strcmp(arguments[1], "pixels")) {
      pixels(arguments + 2);
    } else if (count == 3 && !std::strcmp(arguments[1], "file")) {
      file(arguments[2]);
    } else {
      return 2;
    }
  } catch (const t5g2::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
