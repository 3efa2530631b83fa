// SHA-256 (FIPS 180-4).

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace t5g2 {

class Sha256 {
 public:
  using Digest = std::array<uint8_t, 32>;

  void update(std::span<const uint8_t> data);
  Digest digest();  // ends the message

 private:
  void compress(const uint8_t* blocks, size_t count);

  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> pending_;
  uint64_t bytes_ = 0;
};

Sha256::Digest sha256(std::span<const uint8_t> data);

// In lower case.
std::string hexadecimal(const Sha256::Digest& digest);

}  // namespace t5g2
