// The packed weight format; quant/packed.py describes it.

#pragma once

#include <cstdint>

namespace t5g2 {

// What a reader derives from shape, bits (4, 8, 32) and group size (0: one group per row).
struct Packed {
  const uint8_t* data;
  int64_t rows;
  int64_t columns;
  int64_t bits;
  int64_t group_size;

  int64_t padded_columns() const {
    const int64_t multiple = bits == 32 ? 1 : group_size ? group_size : 8;
    return (columns + multiple - 1) / multiple * multiple;
  }
  int64_t group() const { return group_size ? group_size : padded_columns(); }
  int64_t groups() const { return bits == 32 ? 0 : padded_columns() / group(); }
  int64_t blocks() const { return (rows + 15) / 16; }
  int64_t weight_bytes() const { return 2 * padded_columns() * bits; }  // of a block: 16 rows of bits / 8 bytes
  int64_t block_bytes() const { return (weight_bytes() + 32 * groups() + 63) / 64 * 64; }
  int64_t bytes() const { return blocks() * block_bytes(); }
  const uint8_t* block(int64_t i) const { return data + i * block_bytes(); }
  const uint16_t* scales(int64_t i) const { return reinterpret_cast<const uint16_t*>(block(i) + weight_bytes()); }
};

}  // namespace t5g2
