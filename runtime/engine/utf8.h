// UTF-8: the code points of a text, and how much of it is valid.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace t5g2 {

struct CodePoint {
  char32_t value;
  uint32_t length;  // in bytes; 0: the text does not start with valid UTF-8
};

// The first code point of `text`, which is not empty. Overlong forms, surrogates and values above U+10FFFF are not valid.
inline CodePoint first_code_point(std::string_view text) {
  const auto byte = [&](size_t i) { return uint8_t(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return {first, 1};
  const uint32_t length = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
  if (!length || text.size() < length) return {0, 0};
  char32_t value = first & (0x7F >> length);
  for (uint32_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {0, 0};
    value = value << 6 | (byte(i) & 0x3F);
  }
  const bool overlong = value < (length == 3 ? 0x800u : length == 4 ? 0x10000u : 0x80u);
  const bool surrogate = value >= 0xD800 && value < 0xE000;
  if (overlong || surrogate || value > 0x10FFFF) return {0, 0};
  return {value, length};
}

// How many bytes at the start of `text` are valid UTF-8; its size where all are.
inline size_t valid_utf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const uint32_t length = first_code_point(text.substr(at)).length;
    if (!length) break;
    at += length;
  }
  return at;
}

}  // namespace t5g2
