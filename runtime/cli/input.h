// What is read before the engine is asked: texts, lines and pictures.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "../engine/image_file.h"
#include "t5g2.hpp"

namespace t5g2::cli {

constexpr size_t kMostText = size_t(16) << 20;  // bytes of a text or a line; more than any bundle's source has

// A UTF-8 file without its last line end, which editors and `echo` add; - is stdin. Throws Error.
std::string read_text(const std::string& path);

// What a session is made from.
struct Input {
  std::optional<std::string> text;
  std::vector<int32_t> ids;  // instead of text
  std::vector<Picture> pictures;
};

std::vector<Picture> read_pictures(const std::vector<std::string>& paths);

Result<Session> encode(const Engine& engine, const Input& input);

// A file, or stdin for -. Pipes and devices are taken too, as a shell's `<(command)`.
class InputFile {
 public:
  explicit InputFile(const std::string& path);  // throws Error
  ~InputFile();
  InputFile(const InputFile&) = delete;

  const std::string& name() const { return name_; }
  bool read_more(std::string& text);  // appends what there is; false at the end of the file

 private:
  std::string name_;
  int descriptor_;
};

class Lines {
 public:
  explicit Lines(const std::string& path) : file_(path) {}

  // The next line without its end; none at the end of the file. Throws Error naming the file.
  std::optional<std::string> next();

  std::string where() const;  // "stdin: line 3", of the line that `next` gave

 private:
  InputFile file_;
  std::string held_;
  size_t searched_ = 0;  // bytes of held_ that have no line end
  size_t number_ = 0;
};

}  // namespace t5g2::cli
