#include "prompt.h"

#include <algorithm>

#include "error.h"

namespace t5g2 {
namespace {

bool reads_images(const SpecialTokens& special) { return special.boi && special.eoi && special.image; }

// How a picture is written: two newlines, begin, the image token again and again, end, two newlines.
std::string image_block(const Tokenizer& tokenizer, const SpecialTokens& special) {
  std::string block = join("\n\n", *tokenizer.token(*special.boi));
  for (int32_t i = 0; i < special.tokens_per_image; ++i) block += *tokenizer.token(*special.image);
  return join(block, *tokenizer.token(*special.eoi), "\n\n");
}

size_t count(std::string_view text, std::string_view marker) {
  size_t found = 0;
  for (size_t at = 0; (at = text.find(marker, at)) != text.npos; at += marker.size()) ++found;
  return found;
}

std::string replace(std::string_view text, std::string_view marker, std::string_view block) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t found = std::min(text.find(marker, at), text.size());
    out += text.substr(at, found - at);
    if (found < text.size()) out += block;
    at = found + marker.size();
  }
  return out;
}

}  // namespace

void check_special_tokens(const Tokenizer& tokenizer, const SpecialTokens& special, const std::string& path) {
  const auto check = [&](const char* role, int32_t id) {
    if (tokenizer.token(id)) return;
    fail(path, ": no token has the id ", id, ", which the config calls ", role,
         "; take tokenizer.json and config.json from the same checkpoint");
  };
  check("bos", special.bos);
  for (const int32_t id : special.eos) check("eos", id);
  check("pad", special.pad);
  if (special.boi) check("boi", *special.boi);
  if (special.eoi) check("eoi", *special.eoi);
  if (special.image) check("image", *special.image);
}

std::vector<int32_t> source_ids(const Tokenizer& tokenizer, const SpecialTokens& special, std::string_view text,
                                size_t image_count) {
  std::vector<int32_t> ids{special.bos};
  const auto append = [&](std::string_view source) {
    const std::vector<int32_t> more = tokenizer.encode(source);
    ids.insert(ids.end(), more.begin(), more.end());
  };
  if (!reads_images(special)) {
    if (image_count) {
      fail("the source comes with ", image_count, " image(s), but this model reads text only; leave the images out");
    }
    append(text);
    return ids;
  }
  const std::string_view marker = *tokenizer.token(*special.boi);
  const size_t found = count(text, marker);
  if (found != image_count) {
    fail("the text has ", found, " ", marker, " marker(s) and ", image_count,
         " image(s) were given; write one marker per image, where the image belongs");
  }
  if (!found) {
    append(text);
    return ids;
  }
  const std::string block = image_block(tokenizer, special);
  if (found > Tokenizer::kMaxText / block.size()) fail("the text has ", found, " images, which is too many; give fewer");
  append(replace(text, marker, block));
  if (size_t(std::count(ids.begin(), ids.end(), *special.image)) != found * size_t(special.tokens_per_image)) {
    fail("the text itself contains ", *tokenizer.token(*special.image), ", which stands for image features; write only ",
         marker, " where an image belongs");
  }
  return ids;
}

std::vector<int32_t> suppressed_ids(const Tokenizer& tokenizer, const SpecialTokens& special) {
  std::vector<int32_t> ids = tokenizer.unused_ids();
  for (const auto& id : {special.boi, special.eoi, special.image}) {
    if (id) ids.push_back(*id);
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace t5g2
