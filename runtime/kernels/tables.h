// The tables of all instruction sets; which are defined depends on the architecture that is built for.

#pragma once

#include "kernels.h"

namespace t5g2 {

extern const Kernels kPortable;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvx512Vnni;
extern const Kernels kAmx;       // integer products in tiles, attention in bfloat16 tiles
extern const Kernels kAmxExact;  // the same with attention in float32
bool enable_amx();               // asks the system for the tile registers; false where it has none
#elif defined(__aarch64__)
extern const Kernels kNeon;
extern const Kernels kNeonDotprod;
extern const Kernels kNeonI8mm;
#endif

}  // namespace t5g2
