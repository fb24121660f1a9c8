#include "common/isa.h"
#include "kernels/selection/dense.h"

namespace pycurate::selection {

// Reading the similarities is what takes the time: AVX-512 code was no faster than AVX2 on a matrix of 64 MB.
const Kernels& active_kernels() noexcept { return active_isa() == Isa::scalar ? scalar : avx2; }

}  // namespace pycurate::selection
