// x86-64 with AVX-512 (F, BW, DQ, VL) and VNNI.

#define T5G2_ISA avx512vnni
namespace t5g2::avx512vnni {
constexpr int kAttentionRows = 8;
}
#include "float_kernels.h"
#include "tables.h"
#include "vnni.h"

namespace t5g2 {
using namespace avx512vnni;
constexpr Kernels kAvx512Vnni = T5G2_UNPACKING_KERNELS("avx512vnni", unpack_vnni<4>, unpack_vnni<8>, nullptr, dot_vnni<4>,
                                                       dot_vnni<8>, pair_vnni<4>, pair_vnni<8>);
}  // namespace t5g2
