#include "common/isa.h"
#include "kernels/phash/phash.h"

namespace pycurate::phash {

// A picture is reduced in a tenth of the time that decoding it takes: 64-byte vectors have nothing left to
// win.
const Kernels& active_kernels() noexcept { return active_isa() == Isa::scalar ? scalar : avx2; }

}  // namespace pycurate::phash
