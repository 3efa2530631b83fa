#include <csetjmp>
#include <cstdio>  // jpeglib.h needs it

#include <jpeglib.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "image_decoders.h"
#include "image_orientation.h"

namespace t5g2 {
namespace {

// Progressive files have about ten. A small file can ask for thousands, each of them a pass over the whole picture.
constexpr int kMaxScans = 100;

constexpr const char* kTruncated = "it is truncated";

// libjpeg reports errors by longjmp, so what it is called from has no destructors to run.
class Jpeg {
 public:
  explicit Jpeg(std::span<const uint8_t> file) : file_(file) {
    info_.err = jpeg_std_error(&errors_.base);
    errors_.base.error_exit = [](j_common_ptr info) {
      Errors* errors = reinterpret_cast<Errors*>(info->err);
      errors->base.format_message(info, errors->reason);
      std::longjmp(errors->jump, 1);
    };
    errors_.base.output_message = [](j_common_ptr) {};
  }
  ~Jpeg() { jpeg_destroy_decompress(&info_); }
  Jpeg(const Jpeg&) = delete;
  Jpeg& operator=(const Jpeg&) = delete;

  // Each of these returns false where the file is damaged, and reason() tells how.
  bool read_header() {
    if (setjmp(errors_.jump)) return false;
    jpeg_create_decompress(&info_);
    source_.init_source = source_.term_source = [](j_decompress_ptr) {};
    source_.fill_input_buffer = [](j_decompress_ptr) -> boolean { return FALSE; };  // the file has ended
    source_.skip_input_data = [](j_decompress_ptr info, long count) {
      jpeg_source_mgr* source = info->src;
      const size_t skipped = count < 0 ? 0 : std::min(size_t(count), source->bytes_in_buffer);
      source->next_input_byte += skipped;
      source->bytes_in_buffer -= skipped;
    };
    source_.resync_to_restart = jpeg_resync_to_restart;
    source_.next_input_byte = file_.data();
    source_.bytes_in_buffer = file_.size();
    info_.src = &source_;
    progress_.progress_monitor = [](j_common_ptr info) {
      if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= kMaxScans) return;
      Errors* errors = reinterpret_cast<Errors*>(info->err);
      std::strcpy(errors->reason, "too many scans");
      std::longjmp(errors->jump, 1);
    };
    info_.progress = &progress_;
    jpeg_save_markers(&info_, JPEG_APP0 + 1, 0xffff);
    if (jpeg_read_header(&info_, TRUE) != JPEG_HEADER_OK) return truncated();
    const int channels = info_.num_components;
    info_.out_color_space = channels == 4 ? JCS_CMYK : JCS_RGB;
    if (channels == 1 || channels == 3 || channels == 4) return true;
    std::snprintf(errors_.reason, sizeof(errors_.reason), "%d channels", channels);
    return false;
  }

  // Reads all scans of a progressive file.
  bool start() {
    if (setjmp(errors_.jump)) return false;
    return jpeg_start_decompress(&info_) || truncated();
  }

  // rgb: [height, width, 3]. row: memory for a row of four channels, where the file has four.
  bool read_rows(uint8_t* rgb, uint8_t* row) {
    if (setjmp(errors_.jump)) return false;
    while (info_.output_scanline < info_.output_height) {
      uint8_t* rgb_row = rgb + size_t(info_.output_scanline) * info_.output_width * 3;
      JSAMPROW to = four_channels() ? row : rgb_row;
      if (jpeg_read_scanlines(&info_, &to, 1) != 1) return truncated();
      if (four_channels()) to_rgb(row, rgb_row);
    }
    jpeg_finish_decompress(&info_);  // not being able to is fine: what is missing comes after the pixels
    return true;
  }

  int64_t width() const { return info_.image_width; }
  int64_t height() const { return info_.image_height; }
  bool four_channels() const { return info_.num_components == 4; }
  jpeg_saved_marker_ptr markers() const { return info_.marker_list; }
  const char* reason() const { return errors_.reason; }

 private:
  struct Errors {
    jpeg_error_mgr base;  // first: libjpeg's pointer to it is one to this
    jmp_buf jump;
    char reason[JMSG_LENGTH_MAX];
  };

  bool truncated() {
    std::strcpy(errors_.reason, kTruncated);
    return false;
  }

  // CMYK as Adobe stores it: 255 is no ink.
  void to_rgb(const uint8_t* cmyk, uint8_t* rgb) const {
    for (JDIMENSION x = 0; x < info_.output_width; ++x, cmyk += 4, rgb += 3) {
      for (int c = 0; c < 3; ++c) {
        const int ink = (255 - cmyk[c]) * cmyk[3] + 128;
        rgb[c] = uint8_t(cmyk[3] - ((ink + (ink >> 8)) >> 8));  // the product divided by 255 and rounded
      }
    }
  }

  std::span<const uint8_t> file_;
  jpeg_decompress_struct info_{};
  jpeg_source_mgr source_{};
  jpeg_progress_mgr progress_{};
  Errors errors_{};
};

int orientation_of(jpeg_saved_marker_ptr markers) {
  constexpr std::string_view kExif("Exif\0\0", 6), kXmp("http://ns.adobe.com/xap/1.0/\0", 29);
  std::string exif;  // of all its segments
  std::string_view xmp;
  for (; markers; markers = markers->next) {
    const std::string_view data(reinterpret_cast<const char*>(markers->data), markers->data_length);
    if (data.starts_with(kExif)) exif += exif.empty() ? data : data.substr(kExif.size());
    if (data.starts_with(kXmp)) xmp = data.substr(kXmp.size());
  }
  return orientation({reinterpret_cast<const uint8_t*>(exif.data()), exif.size()}, xmp);
}

}  // namespace

Decoded decode_jpeg(std::span<const uint8_t> file, const std::string& name) {
  Jpeg jpeg(file);
  if (!jpeg.read_header()) fail_damaged(name, jpeg.reason());
  check_size(name, jpeg.width(), jpeg.height());
  const int turn = orientation_of(jpeg.markers());
  if (!jpeg.start()) fail_damaged(name, jpeg.reason());
  Picture picture{int32_t(jpeg.width()), int32_t(jpeg.height()), std::vector<uint8_t>(jpeg.width() * jpeg.height() * 3)};
  std::vector<uint8_t> row(jpeg.four_channels() ? jpeg.width() * 4 : 0);
  if (!jpeg.read_rows(picture.rgb.data(), row.data())) fail_damaged(name, jpeg.reason());
  return {std::move(picture), turn};
}

}  // namespace t5g2
