// Fuzzes the engine's tokenizer: what it reads and what it is asked, by the input's first byte.
//
//     clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/native/fuzz_tokenizer.cpp
//         runtime/engine/{file,text_stream,tokenizer}.cpp -o fuzz_tokenizer
//     T5G2_FUZZ_TOKENIZER=tokenizer.bin ./fuzz_tokenizer        # of a bundle, such as nano's

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/engine/error.h"
#include "runtime/engine/text_stream.h"
#include "runtime/engine/tokenizer.h"
#include "runtime/engine/utf8.h"

namespace {

using namespace t5g2;

constexpr std::string_view kText = " The quick  brown fox, 123 \n\n<bos>▁▁ naïve 🦊<unused1>\t<";

const Tokenizer& tokenizer() {
  static const Tokenizer loaded = [] {
    const char* path = std::getenv("T5G2_FUZZ_TOKENIZER");
    if (!path) {
      std::fprintf(stderr, "set T5G2_FUZZ_TOKENIZER to a tokenizer.bin\n");
      std::abort();
    }
    return Tokenizer(path);
  }();
  return loaded;
}

void check(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

bool is_utf8(std::string_view text) { return valid_utf8(text) == text.size(); }

std::vector<int32_t> ids_of(std::string_view bytes) {
  std::vector<int32_t> ids(bytes.size() / 2);
  for (size_t i = 0; i < ids.size(); ++i) {
    int16_t id;
    std::memcpy(&id, bytes.data() + 2 * i, sizeof(id));
    ids[i] = id;
  }
  return ids;
}

void encode(std::string_view text) {
  try {
    for (const int32_t id : tokenizer().encode(text)) check(tokenizer().token(id).has_value(), "an id without a token");
    check(is_utf8(text), "a text that is not UTF-8 was taken");
  } catch (const Error&) {
    check(!is_utf8(text), "a text was refused");
  }
}

void decode(std::string_view bytes, bool skip_special) {
  const std::vector<int32_t> ids = ids_of(bytes);
  TextStream stream(tokenizer(), skip_special);
  std::string streamed;
  for (const int32_t id : ids) {
    const std::string piece = stream.push(id);
    check(is_utf8(piece), "a piece holds part of a character");
    streamed += piece;
  }
  streamed += stream.flush();
  check(streamed == tokenizer().decode(ids, skip_special), "the streamed text is another");
}

// A stop string up to the first zero byte, then a text, pushed in pieces of a few characters.
void stop(std::string_view bytes) {
  if (!is_utf8(bytes)) return;
  const size_t zero = bytes.find('\0');
  if (zero == bytes.npos) return;
  const std::string string(bytes.substr(0, zero));
  const std::string_view text = bytes.substr(zero + 1);
  TextStop stop({string});
  std::string shown;
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    for (size_t i = 0; i < 1 + at % 3 && end < text.size(); ++i) end += first_code_point(text.substr(end)).length;
    const std::string piece = stop.push(text.substr(at, end - at));
    check(is_utf8(piece), "what is shown holds part of a character");
    shown += piece;
    at = end;
  }
  shown += stop.flush();
  const size_t found = string.empty() ? text.npos : text.find(string);
  check(stop.stopped() == (found != text.npos) && shown == text.substr(0, found), "it stopped elsewhere");
}

void load(std::string_view content) {
  const int file = memfd_create("tokenizer", MFD_CLOEXEC);
  check(file >= 0 && write(file, content.data(), content.size()) == ssize_t(content.size()), "cannot write the file");
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  try {
    const Tokenizer loaded(path);
    std::vector<int32_t> ids = loaded.encode(kText);
    for (int32_t id = -1; id <= std::min(loaded.vocab_size(), 2000); ++id) ids.push_back(id);
    loaded.decode(ids, true);
  } catch (const Error& error) {
    check(!std::strncmp(error.what(), path.data(), path.size()), "the message does not name the file");
  }
  close(file);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (!size) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 5) {
    case 0: encode(rest); break;
    case 1: decode(rest, true); break;
    case 2: decode(rest, false); break;
    case 3: stop(rest); break;
    case 4: load(rest); break;
  }
  return 0;
}
