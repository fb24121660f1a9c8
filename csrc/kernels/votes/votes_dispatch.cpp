#include "common/isa.h"
#include "kernels/votes/votes.h"

namespace pycurate::votes {

const Kernels& active_kernels() noexcept {
    switch (active_isa()) {
        case Isa::avx512: return avx2;
        case Isa::avx2: return avx2;
        case Isa::scalar: break;
    }
    return scalar;
}

}  // namespace pycurate::votes
