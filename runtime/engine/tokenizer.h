// Text to token ids and back, id for id what Hugging Face's tokenizers library gives for the same tokenizer.json of the Gemma
// family. The export converts that file to tokenizer.bin (export/tokenizer_file.py describes it), which is mapped and used in
// place: Gemma's is 33 MB of JSON, which would take hundreds of milliseconds to parse at each start.
//
// Why not a library: SentencePiece merges any two neighbours whose concatenation is a piece, while tokenizer.json lists the
// pairs that merge, which need not be all of them (nano's lacks 132 of 930), so ids differ; pytorch-tokenizers 1.5 takes
// seconds and 250 MB to load Gemma's, and <0x0A> written in a text for that byte; Hugging Face's own is in Rust, with a
// registry of its own.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "file.h"

namespace t5g2 {

// Never changes once loaded, and may be used from several threads at a time.
class Tokenizer {
 public:
  static constexpr size_t kMaxText = size_t(1) << 26;  // bytes that `encode` takes

  // Maps a tokenizer.bin. Throws Error naming the file where it is missing, damaged or of another version; damage that shows
  // only when it is used is an Error there.
  explicit Tokenizer(const std::string& path);
  Tokenizer(const Tokenizer&) = delete;

  // Ids of `text`: no BOS, nothing expanded; special tokens written in it are those tokens. Throws Error for text that is not
  // valid UTF-8.
  std::vector<int32_t> encode(std::string_view text) const;

  // Text of `ids`. Each byte of a run of byte tokens that is not UTF-8 gives U+FFFD; ids outside the vocabulary give nothing.
  std::string decode(std::span<const int32_t> ids, bool skip_special) const;

  // One step of it: appends to `text` what `id` completes. `bytes` keeps the run of byte tokens that has not ended yet, since
  // only as a whole is it UTF-8 or not; `end_bytes` ends it.
  void decode(int32_t id, bool skip_special, std::string& bytes, std::string& text) const;
  static void end_bytes(std::string& bytes, std::string& text);

  // The vocabulary's own name of an id, such as "▁the" or "<0x0A>"; valid while the tokenizer lives.
  std::optional<std::string_view> token(int32_t id) const;

  bool special(int32_t id) const;  // `decode` can leave it out
  bool is_byte(int32_t id) const;  // it stands for a byte, as <0x0A> does
  int32_t vocab_size() const { return int32_t(special_.size()); }  // ids are 0 to vocab_size - 1
  const std::vector<int32_t>& unused_ids() const { return unused_; }  // of every <unusedN>, ascending

 private:
  // A token that is taken out of a text before the rest of it is split into pieces.
  struct AddedToken {
    uint32_t id, flags;
  };
  struct AddedTokens {
    std::span<const AddedToken> sorted;  // by name
    std::array<uint32_t, 257> starts;    // where those that start with this byte or a higher one begin
  };
  struct Match {
    const AddedToken* token;  // nullptr: none
    size_t length;
  };
  class Merger;

  [[noreturn]] void damaged(const char* what) const;
  AddedTokens added_tokens(std::span<const AddedToken> sorted);
  std::string_view name(uint32_t id) const;
  Match longest_match(const AddedTokens& added, std::string_view text, size_t at) const;
  template <class OnText>
  void split(const AddedTokens& added, std::string_view text, std::vector<int32_t>& ids, OnText on_text) const;
  void encode_piece(std::string_view text, Merger& word, std::vector<int32_t>& ids) const;
  uint32_t character(char32_t value) const;
  uint64_t find_merge(uint32_t left, uint32_t right) const;

  std::string path_;
  MappedFile file_;
  std::span<const uint64_t> merges_, characters_;  // as in the file
  std::span<const uint32_t> merge_starts_, name_starts_;
  std::string_view names_;
  std::array<uint32_t, 256> bytes_;   // ids of the byte tokens, or kNone
  std::array<uint32_t, 128> ascii_;   // those of `characters_`, or kNone
  uint32_t unknown_;                  // id for characters without a piece, or kNone
  bool fuse_unknown_, words_;
  AddedTokens literal_, normalized_;  // found before and after spaces are replaced
  std::vector<bool> special_;         // by id
  std::vector<int32_t> unused_;
};

}  // namespace t5g2
