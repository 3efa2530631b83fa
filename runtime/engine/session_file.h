// Encoded sources on disk.
//
// Little endian, without gaps: the magic "t5g2-src"; uint32 format version, 1; uint32 zero; the 32 bytes of the sha256 of the
// text.pte that encoded it; uint64 source tokens n, uint64 bytes of cross K/V, uint64 hidden_size; int32 ids [n]; cross K/V, in
// the program's layout; float32 encoder states [n, hidden_size]; the sha256 of all of this.

#pragma once

#include <string>

#include "bundle.h"
#include "text_program.h"

namespace t5g2 {

// Throws Error; then there is no such file, or the one there was before.
void save_source(const EncodedSource& source, const Manifest& manifest, const std::string& path);

// Throws Error for a file that is damaged, of another model or quantization, or of a newer format.
EncodedSource load_source(const Manifest& manifest, const std::string& path);

}  // namespace t5g2
