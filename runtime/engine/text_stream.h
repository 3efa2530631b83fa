// Text that comes piece by piece: from ids to characters, and up to a stop string.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer.h"

namespace t5g2 {

// Turns ids into text as they come; the pieces joined are exactly `decode` of all ids, and none holds part of a character.
class TextStream {
 public:
  // The tokenizer outlives the stream.
  explicit TextStream(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  // The text that `id` completes, often empty: a run of byte tokens is held until it ends.
  std::string push(int32_t id);

  // What is still held; the stream then starts afresh.
  std::string flush();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  std::string bytes_;
};

// Ends a text before the first of some strings, and shows nothing that may turn out to belong to one.
class TextStop {
 public:
  // Empty strings are ignored. Throws Error for one that is not valid UTF-8.
  explicit TextStop(const std::vector<std::string>& strings);

  // Takes more of the text, in whole characters, and gives what is safe to show. Nothing is, once stopped.
  std::string push(std::string_view piece);

  // What is still held, once no more text comes; what is pushed then is a new text.
  std::string flush();

  bool stopped() const { return stopped_; }

 private:
  // A stop string and how much of it the text ends with, found in time proportional to the text (Knuth, Morris, Pratt).
  struct Search {
    std::string string;
    std::vector<size_t> borders;  // [n]: the longest proper start of the first n bytes that is also their end
    size_t matched = 0;

    bool advance(char byte);  // true: the whole string has been read
  };

  std::vector<Search> searches_;  // from the longest string to the shortest
  std::string held_;
  bool stopped_ = false;
};

}  // namespace t5g2
