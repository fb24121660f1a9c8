#include "common/isa.h"
#include "kernels/hamming/tiles.h"

namespace pycurate::hamming {

// AVX-512 without VPOPCNTDQ (Skylake-X) would count bits as AVX2 does.
const Kernels& active_kernels() noexcept {
    switch (active_isa()) {
        case Isa::avx512: return __builtin_cpu_supports("avx512vpopcntdq") ? avx512vpopcntdq : avx2;
        case Isa::avx2: return avx2;
        case Isa::scalar: break;
    }
    return scalar;
}

}  // namespace pycurate::hamming
