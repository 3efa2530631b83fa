#include "tokenizer.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>

#include "error.h"
#include "utf8.h"

namespace t5g2 {
namespace {

static_assert(std::endian::native == std::endian::little, "tokenizer.bin is used as it is");

constexpr char kMagic[] = {'T', '5', 'G', '2', 'T', 'O', 'K', '\n'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kNone = 0xFFFFFFFF;

struct Header {
  char magic[8];
  uint32_t version, flags, tokens, merges, characters, literal, normalized, unused, name_bytes, unknown;
  uint32_t bytes[256];
};
constexpr uint32_t kFuseUnknown = 1, kWords = 2;                  // flags of the file
constexpr uint32_t kSpecial = 1, kStripLeft = 2, kStripRight = 4;  // flags of an added token

// A merge: the right token's id, the rank and the merged token's id, from the highest bit down.
constexpr int kIdBits = 20, kRankBits = 24;
constexpr uint64_t kNoMerge = ~uint64_t(0);
uint32_t right_of(uint64_t merge) { return uint32_t(merge >> (kRankBits + kIdBits)); }
uint32_t rank_of(uint64_t merge) { return uint32_t(merge >> kIdBits) & ((1u << kRankBits) - 1); }
uint32_t merged_of(uint64_t merge) { return uint32_t(merge) & ((1u << kIdBits) - 1); }

constexpr char32_t kSpace = 0x2581;                   // how the vocabulary writes a space: ▁
constexpr std::string_view kSpaceBytes = "\xE2\x96\x81";
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Unicode's White_Space.
bool is_whitespace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

// Where the whitespace that starts at `at` ends.
size_t whitespace_end(std::string_view text, size_t at) {
  while (at < text.size()) {
    const CodePoint c = first_code_point(text.substr(at));
    if (!is_whitespace(c.value)) break;
    at += c.length;
  }
  return at;
}

// Where the whitespace that ends at `at` starts, not before `first`.
size_t whitespace_start(std::string_view text, size_t first, size_t at) {
  while (at > first) {
    size_t start = at - 1;
    while (start > first && (uint8_t(text[start]) & 0xC0) == 0x80) --start;
    if (!is_whitespace(first_code_point(text.substr(start)).value)) break;
    at = start;
  }
  return at;
}

void replace_spaces(std::string_view text, std::string& out) {
  out.clear();
  for (const char c : text) {
    if (c == ' ') {
      out += kSpaceBytes;
    } else {
      out += c;
    }
  }
}

// The file's sections, one after the other.
class Sections {
 public:
  Sections(std::span<const uint8_t> file, uint64_t start) : file_(file), at_(start) {}

  // The next `count` elements; empty beyond the end of the file.
  template <class T>
  std::span<const T> next(uint64_t count) {
    const uint64_t start = std::exchange(at_, at_ + count * sizeof(T));
    if (at_ > file_.size()) return {};
    return {reinterpret_cast<const T*>(file_.data() + start), size_t(count)};
  }

  bool complete() const { return at_ == file_.size(); }

 private:
  std::span<const uint8_t> file_;
  uint64_t at_;
};

// The value of a byte token's name, <0x00> to <0xFF>; -1 for any other. The library's number parser takes a + before the last
// digit, and so does this.
int byte_value(std::string_view name) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  if (name.size() != 6 || !name.starts_with("<0x") || name[5] != '>') return -1;
  const int high = name[3] == '+' ? 0 : digit(name[3]), low = digit(name[4]);
  return high < 0 || low < 0 ? -1 : 16 * high + low;
}

}  // namespace

// ---- loading ----

Tokenizer::Tokenizer(const std::string& path) : path_(path), file_(path) {
  const std::span<const uint8_t> bytes = file_.bytes();
  Header header;
  if (bytes.size() < sizeof(header)) damaged("it ends within its header");
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic))) damaged("it does not start as one");
  if (header.version != kVersion) {
    fail(path_, ": tokenizer format ", header.version, ", and this library reads ", kVersion, "; export the bundle again");
  }
  const uint32_t tokens = header.tokens;
  if (tokens > 1u << kIdBits) damaged("it has more tokens than fit");

  Sections sections(bytes, sizeof(header));
  merges_ = sections.next<uint64_t>(header.merges);
  characters_ = sections.next<uint64_t>(header.characters);
  merge_starts_ = sections.next<uint32_t>(tokens + 1);
  name_starts_ = sections.next<uint32_t>(tokens + 1);
  const auto literal = sections.next<AddedToken>(header.literal);
  const auto normalized = sections.next<AddedToken>(header.normalized);
  const auto unused = sections.next<uint32_t>(header.unused);
  const auto names = sections.next<char>(header.name_bytes);
  if (!sections.complete()) damaged("its size is not what its header says");

  names_ = {names.data(), names.size()};
  special_.resize(tokens);
  literal_ = added_tokens(literal);
  normalized_ = added_tokens(normalized);
  const auto outside = [&](uint32_t id) { return id >= tokens; };
  const auto outside_if_any = [&](uint32_t id) { return outside(id) && id != kNone; };
  if (std::any_of(unused.begin(), unused.end(), outside)) damaged("an unused token is outside the vocabulary");
  unused_.assign(unused.begin(), unused.end());
  unknown_ = header.unknown;
  fuse_unknown_ = header.flags & kFuseUnknown;
  words_ = header.flags & kWords;
  std::copy(std::begin(header.bytes), std::end(header.bytes), bytes_.begin());
  if (outside_if_any(unknown_) || std::any_of(bytes_.begin(), bytes_.end(), outside_if_any)) {
    damaged("a byte token is outside the vocabulary");
  }
  ascii_.fill(kNone);
  for (const uint64_t entry : characters_) {
    if (outside(uint32_t(entry))) damaged("a character is outside the vocabulary");
    if (const uint64_t value = entry >> 32; value < ascii_.size()) ascii_[value] = uint32_t(entry);
  }
}

void Tokenizer::damaged(const char* what) const {
  fail(path_, ": not an intact tokenizer (", what, "); export the bundle again");
}

Tokenizer::AddedTokens Tokenizer::added_tokens(std::span<const AddedToken> sorted) {
  AddedTokens added{sorted, {}};
  std::string_view previous;
  for (const AddedToken& token : sorted) {
    if (token.id >= special_.size()) damaged("an added token is outside the vocabulary");
    const std::string_view name = this->name(token.id);
    if (name <= previous) damaged("its added tokens are not sorted");
    if (valid_utf8(name) < name.size()) damaged("an added token is not UTF-8");  // it would cut a text within a character
    previous = name;
    ++added.starts[uint8_t(name[0]) + 1];
    special_[token.id] = token.flags & kSpecial;
  }
  std::partial_sum(added.starts.begin(), added.starts.end(), added.starts.begin());
  return added;
}

// ---- ids to text ----

std::string_view Tokenizer::name(uint32_t id) const {
  const uint32_t start = name_starts_[id], end = name_starts_[id + 1];
  if (start > end || end > names_.size()) damaged("a token's name is not in it");
  return names_.substr(start, end - start);
}

std::optional<std::string_view> Tokenizer::token(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return std::nullopt;
  return name(uint32_t(id));
}

bool Tokenizer::special(int32_t id) const { return id >= 0 && id < vocab_size() && special_[id]; }

bool Tokenizer::is_byte(int32_t id) const {
  const auto name = token(id);
  return name && byte_value(*name) >= 0;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes, text;
  for (const int32_t id : ids) decode(id, skip_special, bytes, text);
  end_bytes(bytes, text);
  return text;
}

void Tokenizer::decode(int32_t id, bool skip_special, std::string& bytes, std::string& text) const {
  const auto name = token(id);
  if (!name || (skip_special && special(id))) return;  // these do not end a run of bytes either
  if (const int value = byte_value(*name); value >= 0) {
    bytes += char(value);
    return;
  }
  end_bytes(bytes, text);
  for (size_t at = 0; at < name->size();) {
    const size_t space = std::min(name->find(kSpaceBytes, at), name->size());
    text += name->substr(at, space - at);
    if (space < name->size()) text += ' ';
    at = space + kSpaceBytes.size();
  }
}

void Tokenizer::end_bytes(std::string& bytes, std::string& text) {
  if (valid_utf8(bytes) == bytes.size()) {
    text += bytes;
  } else {
    for (size_t i = 0; i < bytes.size(); ++i) text += kReplacement;
  }
  bytes.clear();
}

// ---- text to ids ----

// Merges the tokens of a word pair by pair, always the pair of the lowest rank, of equal ones the leftmost. Keeps its memory
// from word to word.
class Tokenizer::Merger {
 public:
  explicit Merger(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void add(uint32_t id) { symbols_.push_back({id, uint32_t(symbols_.size()) - 1, uint32_t(symbols_.size()) + 1, kNoMerge}); }

  bool empty() const { return symbols_.empty(); }

  // Appends the word's ids, then starts the next one.
  void finish(std::vector<int32_t>& ids) {
    for (uint32_t i = 0; i < symbols_.size(); ++i) find(i);
    std::make_heap(queue_.begin(), queue_.end(), std::greater());
    while (!queue_.empty()) {
      const uint64_t next = queue_.front();
      std::pop_heap(queue_.begin(), queue_.end(), std::greater());
      queue_.pop_back();
      merge(uint32_t(next), uint32_t(next >> 32));
    }
    for (uint32_t i = 0; i < symbols_.size(); i = symbols_[i].next) ids.push_back(int32_t(symbols_[i].id));
    symbols_.clear();
  }

 private:
  struct Symbol {
    uint32_t id, previous, next;  // neighbours by index; beyond the symbols where there is none
    uint64_t merge;               // of this symbol and the next, as in the file
  };

  // Sets symbol i's merge; true if it has one.
  bool find(uint32_t i) {
    Symbol& symbol = symbols_[i];
    symbol.merge = symbol.next < symbols_.size() ? tokenizer_.find_merge(symbol.id, symbols_[symbol.next].id) : kNoMerge;
    if (symbol.merge == kNoMerge) return false;
    queue_.push_back(uint64_t(rank_of(symbol.merge)) << 32 | i);
    return true;
  }

  void merge(uint32_t i, uint32_t rank) {
    Symbol& symbol = symbols_[i];
    if (symbol.merge == kNoMerge || rank_of(symbol.merge) != rank) return;  // one of the two has been merged since
    Symbol& right = symbols_[symbol.next];
    symbol.id = merged_of(symbol.merge);
    symbol.next = right.next;
    right.merge = kNoMerge;
    if (symbol.next < symbols_.size()) symbols_[symbol.next].previous = i;
    if (find(i)) std::push_heap(queue_.begin(), queue_.end(), std::greater());
    if (symbol.previous < symbols_.size() && find(symbol.previous)) {
      std::push_heap(queue_.begin(), queue_.end(), std::greater());
    }
  }

  const Tokenizer& tokenizer_;
  std::vector<Symbol> symbols_;
  std::vector<uint64_t> queue_;  // rank << 32 | index of the left symbol; some of them outdated
};

uint64_t Tokenizer::find_merge(uint32_t left, uint32_t right) const {
  const uint32_t start = merge_starts_[left], end = merge_starts_[left + 1];
  if (start > end || end > merges_.size()) damaged("a token's merges are not in it");
  const auto row = merges_.subspan(start, end - start);
  const auto found = std::lower_bound(row.begin(), row.end(), right, [](uint64_t m, uint32_t id) { return right_of(m) < id; });
  if (found == row.end() || right_of(*found) != right) return kNoMerge;
  if (merged_of(*found) >= special_.size()) damaged("a merge is outside the vocabulary");
  return *found;
}

uint32_t Tokenizer::character(char32_t value) const {
  if (value < ascii_.size()) return ascii_[value];
  const auto found = std::lower_bound(characters_.begin(), characters_.end(), uint64_t(value) << 32);
  return found == characters_.end() || *found >> 32 != value ? kNone : uint32_t(*found);
}

Tokenizer::Match Tokenizer::longest_match(const AddedTokens& added, std::string_view text, size_t at) const {
  const uint8_t first = uint8_t(text[at]);
  auto low = added.sorted.begin() + added.starts[first], high = added.sorted.begin() + added.starts[first + 1];
  Match longest{nullptr, 0};
  // All from low to high start with the `length` bytes of the text at `at`.
  for (size_t length = 1; low < high; ++length) {
    if (name(low->id).size() == length) {
      longest = {&*low, length};
      ++low;
    }
    if (at + length == text.size()) break;
    const auto byte = [&](const AddedToken& token) { return uint8_t(name(token.id)[length]); };
    const uint8_t next = uint8_t(text[at + length]);
    low = std::partition_point(low, high, [&](const AddedToken& token) { return byte(token) < next; });
    high = std::partition_point(low, high, [&](const AddedToken& token) { return byte(token) == next; });
  }
  return longest;
}

// Cuts `text` at the added tokens, the leftmost first, the longest of those: their ids go into `ids`, and the text between
// them to `on_text`.
template <class OnText>
void Tokenizer::split(const AddedTokens& added, std::string_view text, std::vector<int32_t>& ids, OnText on_text) const {
  size_t done = 0;  // what is before this has been taken
  for (size_t at = 0; at < text.size();) {
    const auto [token, length] = longest_match(added, text, at);
    if (!token) {
      ++at;
      continue;
    }
    const size_t start = token->flags & kStripLeft ? whitespace_start(text, done, at) : at;
    at += length;
    if (done < start) on_text(text.substr(done, start - done));
    ids.push_back(int32_t(token->id));
    done = token->flags & kStripRight ? whitespace_end(text, at) : at;
  }
  if (done < text.size()) on_text(text.substr(done));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  if (text.size() > kMaxText) {
    fail("the text has ", text.size(), " bytes, and at most ", kMaxText, " are taken; give a part of it");
  }
  if (const size_t valid = valid_utf8(text); valid < text.size()) {
    fail("the text is not valid UTF-8 at byte ", valid, "; read the input as UTF-8, or replace what is not");
  }
  std::vector<int32_t> ids;
  std::string spaced;
  Merger word(*this);
  split(literal_, text, ids, [&](std::string_view part) {
    replace_spaces(part, spaced);
    split(normalized_, spaced, ids, [&](std::string_view piece) { encode_piece(piece, word, ids); });
  });
  return ids;
}

void Tokenizer::encode_piece(std::string_view text, Merger& word, std::vector<int32_t>& ids) const {
  bool unknown = false;  // characters without a token precede
  const auto end_unknown = [&] {
    if (unknown) word.add(unknown_);
    unknown = false;
  };
  char32_t previous = kSpace;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = first_code_point(text.substr(at));
    const std::string_view bytes = text.substr(at, c.length);
    at += c.length;
    if (const uint32_t id = character(c.value); id != kNone) {
      end_unknown();
      if (words_ && c.value == kSpace && previous != kSpace) word.finish(ids);
      word.add(id);
    } else if (std::all_of(bytes.begin(), bytes.end(), [&](char byte) { return bytes_[uint8_t(byte)] != kNone; })) {
      for (const char byte : bytes) word.add(bytes_[uint8_t(byte)]);  // in front of `unknown`, as the library has it
    } else if (unknown_ != kNone) {
      if (!fuse_unknown_) end_unknown();
      unknown = true;
    }
    previous = c.value;
  }
  end_unknown();
  word.finish(ids);
}

}  // namespace t5g2
