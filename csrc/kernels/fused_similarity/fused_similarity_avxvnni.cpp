// Compiled for AVX2 with AVX-VNNI: only the dot product of bytes differs from AVX2, see active_kernels().
#include "kernels/fused_similarity/screen_avx2.h"

namespace pycurate::fused_similarity {
namespace {

struct Dot {
    static __m256i add(__m256i sums, __m256i row, __m256i columns) noexcept {
        return _mm256_dpbusd_avx_epi32(sums, row, columns);
    }
};

}  // namespace

extern const Screen avxvnni{screen<Dot>};

}  // namespace pycurate::fused_similarity
