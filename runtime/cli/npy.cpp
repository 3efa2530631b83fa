#include "npy.h"

#include <bit>

#include "../engine/error.h"
#include "../engine/file.h"

namespace t5g2::cli {

void write_npy(const std::string& path, std::span<const float> values, std::span<const size_t> shape) {
  static_assert(std::endian::native == std::endian::little);
  std::string dimensions;
  for (const size_t dimension : shape) dimensions += join(dimension, ", ");
  std::string header = join("{'descr': '<f4', 'fortran_order': False, 'shape': (", dimensions, "), }");
  constexpr size_t kBefore = 10, kAligned = 64;  // bytes before the header; what the data begins at a multiple of
  header.resize((kBefore + header.size() + kAligned) / kAligned * kAligned - kBefore - 1, ' ');
  header += '\n';
  const char before[kBefore] = {'\x93', 'N', 'U', 'M', 'P', 'Y', 1, 0, char(header.size() & 0xFF), char(header.size() >> 8)};
  write_atomically(path, [&](FileWriter& file) {
    file.write(before, kBefore);
    file.write(header.data(), header.size());
    file.write(values.data(), values.size_bytes());
  });
}

}  // namespace t5g2::cli
