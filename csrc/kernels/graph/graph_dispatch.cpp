#include "common/isa.h"
#include "kernels/graph/sweeps.h"

namespace pycurate::graph {

const Kernels& active_kernels() noexcept {
    switch (active_isa()) {
        case Isa::avx512: return avx512;
        case Isa::avx2: return avx2;
        case Isa::scalar: break;
    }
    return scalar;
}

}  // namespace pycurate::graph
