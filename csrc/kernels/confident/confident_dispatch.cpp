#include "common/isa.h"
#include "kernels/confident/confident.h"

namespace pycurate::confident {

const Kernels& active_kernels() noexcept {
    switch (active_isa()) {
        // Reading memory takes most of the time of AVX2 (see confident_avx2.cpp): 16 lanes had little left to
        // win.
        case Isa::avx512: return avx2;
        case Isa::avx2: return avx2;
        case Isa::scalar: break;
    }
    return scalar;
}

}  // namespace pycurate::confident
