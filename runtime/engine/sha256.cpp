#include "sha256.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace t5g2 {
namespace {

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
constexpr uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t big_endian(const uint8_t* bytes) {
  return uint32_t(bytes[0]) << 24 | uint32_t(bytes[1]) << 16 | uint32_t(bytes[2]) << 8 | bytes[3];
}

}  // namespace

void Sha256::compress(const uint8_t* blocks, size_t count) {
  auto [a0, b0, c0, d0, e0, f0, g0, h0] = state_;
  for (; count; --count, blocks += 64) {
    uint32_t w[64];
    for (int i = 0; i < 16; ++i) w[i] = big_endian(blocks + 4 * i);
    for (int i = 16; i < 64; ++i) {
      const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
      const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t a = a0, b = b0, c = c0, d = d0, e = e0, f = f0, g = g0, h = h0;
    for (int i = 0; i < 64; ++i) {
      const uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
      const uint32_t first = h + s1 + ((e & f) ^ (~e & g)) + kRound[i] + w[i];
      const uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
      const uint32_t second = s0 + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + first, d = c, c = b, b = a, a = first + second;
    }
    a0 += a, b0 += b, c0 += c, d0 += d, e0 += e, f0 += f, g0 += g, h0 += h;
  }
  state_ = {a0, b0, c0, d0, e0, f0, g0, h0};
}

void Sha256::update(std::span<const uint8_t> data) {
  const size_t held = bytes_ % 64;
  bytes_ += data.size();
  if (held) {
    const size_t taken = std::min(64 - held, data.size());
    std::memcpy(pending_.data() + held, data.data(), taken);
    data = data.subspan(taken);
    if (held + taken < 64) return;
    compress(pending_.data(), 1);
  }
  compress(data.data(), data.size() / 64);
  const auto rest = data.subspan(data.size() / 64 * 64);
  if (!rest.empty()) std::memcpy(pending_.data(), rest.data(), rest.size());
}

Sha256::Digest Sha256::digest() {
  const uint64_t bits = bytes_ * 8;
  uint8_t padding[72] = {0x80};
  const size_t zeros = (119 - bytes_ % 64) % 64;  // up to 8 bytes before the end of a block
  for (int i = 0; i < 8; ++i) padding[zeros + 1 + i] = uint8_t(bits >> (56 - 8 * i));
  update({padding, zeros + 9});
  Digest out;
  for (int i = 0; i < 32; ++i) out[i] = uint8_t(state_[i / 4] >> (24 - i % 4 * 8));
  return out;
}

Sha256::Digest sha256(std::span<const uint8_t> data) {
  Sha256 hash;
  hash.update(data);
  return hash.digest();
}

std::string hexadecimal(const Sha256::Digest& digest) {
  std::string text;
  for (uint8_t byte : digest) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

}  // namespace t5g2
