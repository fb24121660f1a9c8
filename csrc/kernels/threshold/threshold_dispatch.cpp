#include "common/isa.h"
#include "kernels/threshold/threshold.h"

namespace pycurate::threshold {

const Kernels& active_kernels() noexcept {
    switch (active_isa()) {
        case Isa::avx512: return avx2;
        case Isa::avx2: return avx2;
        case Isa::scalar: break;
    }
    return scalar;
}

}  // namespace pycurate::threshold
