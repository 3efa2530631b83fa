#include "input.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "../engine/error.h"
#include "../engine/utf8.h"

namespace t5g2::cli {
namespace {

[[noreturn]] void fail_to_read(const std::string& name, int error) {
  const char* remedy = error == EACCES || error == EPERM ? "check the permissions" : "check the path";
  fail(name, ": cannot read it (", std::strerror(error), "); ", remedy);
}

std::string without_end(std::string line) {
  if (line.ends_with('\n')) line.pop_back();
  if (line.ends_with('\r')) line.pop_back();
  return line;
}

}  // namespace

InputFile::InputFile(const std::string& path)
    : name_(path == "-" ? "stdin" : path), descriptor_(path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (descriptor_ < 0) fail_to_read(name_, errno);
}

InputFile::~InputFile() {
  if (descriptor_ != STDIN_FILENO) close(descriptor_);
}

bool InputFile::read_more(std::string& text) {
  char bytes[1 << 16];
  ssize_t count;
  do {
    count = read(descriptor_, bytes, sizeof(bytes));
  } while (count < 0 && errno == EINTR);
  if (count < 0) fail_to_read(name_, errno);
  text.append(bytes, size_t(count));
  return count > 0;
}

std::string read_text(const std::string& path) {
  InputFile file(path);
  std::string text;
  while (file.read_more(text)) {
    if (text.size() > kMostText) fail(file.name(), ": longer than ", kMostText, " bytes; check that it is the right file");
  }
  const size_t valid = valid_utf8(text);
  if (valid < text.size()) fail(file.name(), ": not UTF-8 text (byte ", valid, "); convert it to UTF-8");
  return without_end(std::move(text));
}

std::vector<Picture> read_pictures(const std::vector<std::string>& paths) {
  std::vector<Picture> pictures;
  for (const std::string& path : paths) pictures.push_back(read_image(path));
  return pictures;
}

Result<Session> encode(const Engine& engine, const Input& input) {
  std::vector<Image> images;
  for (const Picture& p : input.pictures) images.push_back({p.rgb.data(), p.width, p.height, 3, 0});
  if (input.text) return Session::make(engine, {.text = *input.text, .images = images});
  return Session::make(engine, {.ids = input.ids, .images = images});
}

std::optional<std::string> Lines::next() {
  size_t end;
  bool more = true;
  while ((end = held_.find('\n', searched_)) == held_.npos && more) {
    searched_ = held_.size();
    more = file_.read_more(held_);
    if (searched_ > kMostText) {
      fail(file_.name(), ": line ", number_ + 1, " is longer than ", kMostText, " bytes; check that it is the right file");
    }
  }
  if (held_.empty()) return std::nullopt;
  ++number_;
  const size_t length = std::min(end, held_.size() - 1) + 1;
  std::string line = held_.substr(0, length);
  held_.erase(0, length);
  searched_ = 0;
  return without_end(std::move(line));
}

std::string Lines::where() const { return join(file_.name(), ": line ", number_); }

}  // namespace t5g2::cli
