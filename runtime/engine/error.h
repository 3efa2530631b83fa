// How the engine's own code fails: by throwing. The C interface turns that into a status and a message.

#pragma once

#include <exception>
#include <sstream>
#include <string>
#include <utility>

namespace t5g2 {

class Error : public std::exception {
 public:
  enum class Kind {
    kInput,  // something outside the program is wrong: a file, a bundle, an input
    kUsage,  // an argument that no input could satisfy
  };

  Error(Kind kind, std::string message) : kind_(kind), message_(std::move(message)) {}
  Kind kind() const { return kind_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  Kind kind_;
  std::string message_;
};

template <class... Parts>
std::string join(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// Each message is one line: the input's name, what was wrong with it, and what to do.
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw Error(Error::Kind::kInput, join(parts...));
}

template <class... Parts>
[[noreturn]] void misuse(const Parts&... parts) {
  throw Error(Error::Kind::kUsage, join(parts...));
}

}  // namespace t5g2
