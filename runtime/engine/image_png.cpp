#include <png.h>
#include <zlib.h>

#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <utility>

#include "image_decoders.h"
#include "image_orientation.h"

namespace t5g2 {
namespace {

constexpr size_t kSignatureBytes = 8;

// What deflate makes of a byte at most, about: a header that promises more than the file can hold costs no memory.
constexpr int64_t kMaxInflation = 1040;

constexpr const char* kTruncated = "it is truncated";

// libpng reports errors by longjmp, so what it is called from has no destructors to run.
class Png {
 public:
  explicit Png(std::span<const uint8_t> file) : left_(file) {}
  ~Png() { png_destroy_read_struct(&png_, &info_, nullptr); }
  Png(const Png&) = delete;
  Png& operator=(const Png&) = delete;

  // Up to the pixels. Each of these returns false where the file is damaged, and reason() tells how.
  bool read_header() {
    if (setjmp(jump_)) return false;
    const auto on_error = [](png_structp png, png_const_charp message) { of(png_get_error_ptr(png))->stop(message); };
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, [](png_structp, png_const_charp) {});
    info_ = png_ ? png_create_info_struct(png_) : nullptr;
    if (!info_) stop("libpng does not start");
    png_set_read_fn(png_, this, [](png_structp png, png_bytep to, size_t size) { of(png_get_io_ptr(png))->read(to, size); });
    png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // check_size has ours
    png_set_crc_action(png_, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);  // whatever does not make pixels
    png_set_option(png_, PNG_MAXIMUM_INFLATE_WINDOW, PNG_OPTION_ON);         // for the files that understate it
    png_read_info(png_, info_);
    return true;
  }

  // 8 bits a channel and three channels; but gray of 16 bits as it is. For row_bytes and read_rows.
  bool set_up() {
    if (setjmp(jump_)) return false;
    if (png_get_color_type(png_, info_) == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png_);  // unknown colours: black
    png_set_strip_alpha(png_);
    if (!gray16()) {
      png_set_strip_16(png_);
      png_set_gray_to_rgb(png_);
    }
    passes_ = png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }

  bool read_rows(uint8_t* rows) {
    if (setjmp(jump_)) return false;
    const size_t size = row_bytes();
    const int64_t count = height();
    for (int pass = 0; pass < passes_; ++pass) {
      for (int64_t y = 0; y < count; ++y) png_read_row(png_, rows + size_t(y) * size, nullptr);
    }
    return true;
  }

  int64_t width() const { return png_get_image_width(png_, info_); }
  int64_t height() const { return png_get_image_height(png_, info_); }
  size_t row_bytes() const { return png_get_rowbytes(png_, info_); }
  bool gray16() const {
    return png_get_bit_depth(png_, info_) == 16 && png_get_color_type(png_, info_) == PNG_COLOR_TYPE_GRAY;
  }
  const char* reason() const { return reason_; }

 private:
  static Png* of(void* self) { return static_cast<Png*>(self); }

  [[noreturn]] void stop(const char* message) {
    std::snprintf(reason_, sizeof(reason_), "%s", message);
    std::longjmp(jump_, 1);
  }

  void read(uint8_t* to, size_t size) {
    if (size > left_.size()) stop(kTruncated);
    std::memcpy(to, left_.data(), size);
    left_ = left_.subspan(size);
  }

  std::span<const uint8_t> left_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  int passes_ = 0;
  jmp_buf jump_;
  char reason_[128] = "";
};

// --- what is said beside the pixels ---

constexpr size_t kMaxTextBytes = 1 << 20;  // of a compressed text

// What comes before the first `end_byte`; data goes on after it.
std::string_view take_until(std::string_view& data, char end_byte) {
  const size_t end = data.find(end_byte);
  const std::string_view taken = data.substr(0, end);
  data.remove_prefix(end == data.npos ? data.size() : end + 1);
  return taken;
}

std::string inflated(std::string_view data) {
  std::string text(kMaxTextBytes, '\0');
  uLongf size = text.size();
  const int status = uncompress(reinterpret_cast<Bytef*>(text.data()), &size, reinterpret_cast<const Bytef*>(data.data()),
                                uLong(data.size()));
  text.resize(status == Z_OK ? size : 0);
  return text;
}

// A chunk tEXt, zTXt or iTXt, without its key.
struct TextChunk {
  std::string_view type, data;
};

std::string text_of(TextChunk chunk) {
  if (chunk.type == "tEXt" || chunk.data.size() < 2) return std::string(chunk.data);
  if (chunk.type == "zTXt") return inflated(chunk.data.substr(1));  // after the method
  const bool compressed = chunk.data[0];
  chunk.data.remove_prefix(2);
  take_until(chunk.data, '\0');  // language
  take_until(chunk.data, '\0');  // the key in that language
  return compressed ? inflated(chunk.data) : std::string(chunk.data);
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 0x20;  // lower case
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// ImageMagick's way to keep EXIF: three lines of introduction, then hexadecimal digits. Nothing where it is not that.
std::string from_hex_profile(std::string_view text) {
  for (int line = 0; line < 3; ++line) take_until(text, '\n');
  std::string bytes;
  int high = -1;  // the first digit of a byte, once it was read
  for (const char c : text) {
    if (c == '\n') continue;
    const int digit = hex_digit(c);
    if (digit < 0) return {};
    if (high >= 0) bytes += char(high << 4 | digit);
    high = high < 0 ? digit : -1;
  }
  return bytes;
}

uint32_t big_endian(const uint8_t* at) { return uint32_t(at[0]) << 24 | at[1] << 16 | at[2] << 8 | at[3]; }

// From all chunks, those after the pixels too; the last of a kind counts.
int orientation_of(std::span<const uint8_t> file, const std::string& name) {
  std::string_view exif;
  TextChunk profile, xmp;
  for (size_t at = kSignatureBytes; at + 8 <= file.size();) {
    const size_t size = big_endian(&file[at]);
    const std::string_view type(reinterpret_cast<const char*>(&file[at + 4]), 4);
    at += 8;
    if (type == "IEND") break;
    if (size > file.size() - at) fail_damaged(name, kTruncated);
    std::string_view data(reinterpret_cast<const char*>(file.data()) + at, size);
    if (type == "eXIf") exif = data;
    if (type == "tEXt" || type == "zTXt" || type == "iTXt") {
      const std::string_view key = take_until(data, '\0');
      if (key == "Raw profile type exif") profile = {type, data};
      if (key == "XML:com.adobe.xmp") xmp = {type, data};
    }
    at += size + 4;  // and the checksum
  }
  const std::string from_text = exif.empty() ? from_hex_profile(text_of(profile)) : "";
  if (exif.empty()) exif = from_text;
  return orientation({reinterpret_cast<const uint8_t*>(exif.data()), exif.size()}, text_of(xmp));
}

// Gray of 16 bits as Pillow makes RGB of it: what is above 255 is white.
std::vector<uint8_t> clipped(const std::vector<uint8_t>& gray16) {
  std::vector<uint8_t> rgb(gray16.size() / 2 * 3);
  for (size_t i = 0; i < gray16.size() / 2; ++i) {
    const uint8_t value = gray16[2 * i] ? 255 : gray16[2 * i + 1];
    for (int c = 0; c < 3; ++c) rgb[3 * i + c] = value;
  }
  return rgb;
}

}  // namespace

Decoded decode_png(std::span<const uint8_t> file, const std::string& name) {
  Png png(file);
  if (!png.read_header()) fail_damaged(name, png.reason());
  const int64_t width = png.width(), height = png.height();
  check_size(name, width, height);
  if (int64_t(png.row_bytes()) * height / kMaxInflation > int64_t(file.size())) fail_damaged(name, kTruncated);
  if (!png.set_up()) fail_damaged(name, png.reason());
  std::vector<uint8_t> rows(png.row_bytes() * size_t(height));
  if (!png.read_rows(rows.data())) fail_damaged(name, png.reason());
  const int turn = orientation_of(file, name);
  return {{int32_t(width), int32_t(height), png.gray16() ? clipped(rows) : std::move(rows)}, turn};
}

}  // namespace t5g2
