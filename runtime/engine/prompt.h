// What a model reads for a text: BOS, the text's ids, and a block of image tokens for each picture.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer.h"

namespace t5g2 {

// The ids that the model treats specially. A model without pictures lacks one of boi, eoi and image.
struct SpecialTokens {
  int32_t bos;
  std::vector<int32_t> eos;
  int32_t pad;
  std::optional<int32_t> boi, eoi, image;  // begin and end of a picture, and what stands for its features
  int32_t tokens_per_image;                // image tokens of a block
};

// Throws Error naming `path` where the vocabulary lacks one of the ids. The functions below take ids that passed this.
void check_special_tokens(const Tokenizer& tokenizer, const SpecialTokens& special, const std::string& path);

// Ids of a source text: BOS + ids, no EOS, and each begin-of-picture marker expanded to its block. The tokenizer file's own
// post-processor has no say: a fine-tune that lost its BOS still gets one. Text that already starts with <bos> gets a second
// one, as from transformers. Throws Error where the text has not as many markers as there are pictures, where it writes image
// tokens of its own beside pictures, and where it is not valid UTF-8.
std::vector<int32_t> source_ids(const Tokenizer& tokenizer, const SpecialTokens& special, std::string_view text,
                                size_t image_count);

// Ids that an answer should never hold, ascending: every <unusedN> and the image tokens.
std::vector<int32_t> suppressed_ids(const Tokenizer& tokenizer, const SpecialTokens& special);

}  // namespace t5g2
