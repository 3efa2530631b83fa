#include "text_stream.h"

#include <algorithm>
#include <utility>

#include "error.h"
#include "utf8.h"

namespace t5g2 {

std::string TextStream::push(int32_t id) {
  std::string text;
  tokenizer_.decode(id, skip_special_, bytes_, text);
  return text;
}

std::string TextStream::flush() {
  std::string text;
  Tokenizer::end_bytes(bytes_, text);
  return text;
}

TextStop::TextStop(const std::vector<std::string>& strings) {
  for (const std::string& string : strings) {
    if (string.empty()) continue;
    if (const size_t valid = valid_utf8(string); valid < string.size()) {
      misuse("a stop string is not valid UTF-8 at byte ", valid, "; give it as UTF-8");
    }
    Search search{string, {0, 0}};
    for (size_t i = 1; i < string.size(); ++i) {
      search.advance(string[i]);
      search.borders.push_back(search.matched);
    }
    search.matched = 0;
    searches_.push_back(std::move(search));
  }
  // Of strings that end at the same byte the one that starts first counts.
  std::sort(searches_.begin(), searches_.end(),
            [](const Search& a, const Search& b) { return a.string.size() > b.string.size(); });
}

bool TextStop::Search::advance(char byte) {
  while (matched && string[matched] != byte) matched = borders[matched];
  if (string[matched] == byte) ++matched;
  return matched == string.size();
}

std::string TextStop::push(std::string_view piece) {
  if (stopped_) return {};
  for (const char byte : piece) {
    held_ += byte;
    for (Search& search : searches_) {
      if (!search.advance(byte)) continue;
      stopped_ = true;
      held_.resize(held_.size() - search.string.size());
      return std::exchange(held_, {});
    }
  }
  size_t keep = 0;
  for (const Search& search : searches_) keep = std::max(keep, search.matched);
  std::string text = held_.substr(0, held_.size() - keep);
  held_.erase(0, text.size());
  return text;
}

std::string TextStop::flush() {
  for (Search& search : searches_) search.matched = 0;
  return std::exchange(held_, {});
}

}  // namespace t5g2
