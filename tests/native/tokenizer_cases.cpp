// Answers requests about a tokenizer on stdin, for test_engine_tokenizer.py. A request is the letter of a function below and a
// payload, an answer 0 or 1 (an Error, its message following) and a payload; a payload is its length and that many bytes.
// Numbers are 4 bytes, little-endian; texts inside a payload are payloads too, but for the last one.

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/engine/error.h"
#include "runtime/engine/prompt.h"
#include "runtime/engine/text_stream.h"
#include "runtime/engine/tokenizer.h"

namespace {

using namespace t5g2;

std::unique_ptr<Tokenizer> tokenizer;

class Payload {
 public:
  explicit Payload(std::string_view bytes) : rest_(bytes) {}

  std::string_view take(size_t size) {
    if (size > rest_.size()) misuse("a request is too short");
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }
  int32_t number() {
    int32_t value;
    std::memcpy(&value, take(sizeof(value)).data(), sizeof(value));
    return value;
  }
  std::string text() { return std::string(take(size_t(number()))); }
  std::string_view rest() { return take(rest_.size()); }
  std::vector<int32_t> numbers() {
    std::vector<int32_t> all;
    while (!rest_.empty()) all.push_back(number());
    return all;
  }
  std::vector<std::string> texts() {
    std::vector<std::string> all;
    while (!rest_.empty()) all.push_back(text());
    return all;
  }

 private:
  std::string_view rest_;
};

std::string number(size_t value) {
  const uint32_t small = uint32_t(value);
  return std::string(reinterpret_cast<const char*>(&small), sizeof(small));
}

std::string numbers(const std::vector<int32_t>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(int32_t));
}

std::string text(std::string_view value) { return number(value.size()).append(value); }

SpecialTokens special_tokens(Payload& payload) {
  SpecialTokens special;
  special.bos = payload.number();
  special.eos = {payload.number()};
  special.pad = payload.number();
  for (auto* id : {&special.boi, &special.eoi, &special.image}) {
    const int32_t value = payload.number();
    if (value >= 0) *id = value;
  }
  special.tokens_per_image = payload.number();
  check_special_tokens(*tokenizer, special, "tokenizer.bin");
  return special;
}

std::string answer(char function, Payload payload) {
  std::string out;
  switch (function) {
    case 'L':  // load: a path
      tokenizer.reset();
      tokenizer = std::make_unique<Tokenizer>(std::string(payload.rest()));
      return out;
    case 'E':  // encode: a text; its ids
      return numbers(tokenizer->encode(payload.rest()));
    case 'D': {  // decode: whether to skip special tokens, ids; their text
      const bool skip_special = payload.number();
      return tokenizer->decode(payload.numbers(), skip_special);
    }
    case 'S': {  // stream: the same; the piece of each id and the last one
      TextStream stream(*tokenizer, payload.number());
      for (const int32_t id : payload.numbers()) out += text(stream.push(id));
      return out += text(stream.flush());
    }
    case 'T':  // token: ids; of each whether there is one, is special, is a byte, and its name
      for (const int32_t id : payload.numbers()) {
        const auto name = tokenizer->token(id);
        out += number(name.has_value()) + number(tokenizer->special(id)) + number(tokenizer->is_byte(id));
        out += text(name.value_or(""));
      }
      return out;
    case 'V':  // vocab_size
      return number(size_t(tokenizer->vocab_size()));
    case 'P': {  // source_ids: special tokens, how many images, a text; its ids
      const SpecialTokens special = special_tokens(payload);
      const size_t images = size_t(payload.number());
      return numbers(source_ids(*tokenizer, special, payload.rest(), images));
    }
    case 'U':  // suppressed_ids: special tokens; ids
      return numbers(suppressed_ids(*tokenizer, special_tokens(payload)));
    case 'X': {  // stop: how many stop strings, those, pieces of text; after each: whether it has stopped, what it showed.
                 // An empty piece stands for the end of a text, and so does the end
      std::vector<std::string> strings(size_t(payload.number()));
      for (std::string& string : strings) string = payload.text();
      TextStop stop(strings);
      for (const std::string& piece : payload.texts()) {
        const std::string shown = piece.empty() ? stop.flush() : stop.push(piece);
        out += number(stop.stopped()) + text(shown);
      }
      return out += text(stop.flush());
    }
  }
  misuse("there is no function ", function);
}

bool read(void* data, size_t size) { return std::fread(data, 1, size, stdin) == size; }

}  // namespace

int main() {
  char function;
  while (read(&function, 1)) {
    uint32_t size;
    if (!read(&size, sizeof(size))) return 1;
    std::string payload(size, '\0'), out;
    if (!read(payload.data(), size)) return 1;
    char failed = 0;
    try {
      out = answer(function, Payload(payload));
    } catch (const t5g2::Error& error) {
      failed = 1;
      out = error.what();
    }
    std::fwrite(&failed, 1, 1, stdout);
    out = text(out);
    std::fwrite(out.data(), 1, out.size(), stdout);
    std::fflush(stdout);
  }
}
