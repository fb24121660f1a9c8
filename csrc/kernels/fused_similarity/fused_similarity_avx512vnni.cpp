// Compiled for AVX-512 with VNNI: only the dot product of bytes differs from AVX-512, see active_kernels().
#include "kernels/fused_similarity/screen_avx512.h"

namespace pycurate::fused_similarity {
namespace {

struct Dot {
    static __m512i add(__m512i sums, __m512i row, __m512i columns) noexcept {
        return _mm512_dpbusd_epi32(sums, row, columns);
    }
};

}  // namespace

extern const Screen avx512vnni{screen<Dot>};

}  // namespace pycurate::fused_similarity
