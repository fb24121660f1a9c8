// Compiled for AVX2 with AVX-VNNI: only the dot product of bytes differs from AVX2, see active_kernels().
#include "kernels/fused_similarity/screen_avx2.h"

namespace pycurate::fused_similarity {
namespace {

struct Dot {
    static __m256i add(__m256i sums, __m256i row, __m256i columns) noexcept {
        return _mm256_dpbusd_avx_epi32(sums, row, columns);
    }
};

/// Twelve independent sums that registers alone feed, in assembly so that nothing is merged, moved or stored:
/// what the machine can do at most.
std::uint64_t burn_bytes(std::size_t rounds) noexcept {
    std::size_t left = rounds;
    asm volatile(
        "vmovd %1, %%xmm0\n\t"
        "vpbroadcastd %%xmm0, %%ymm1\n\t"
        "vpbroadcastd %%xmm0, %%ymm2\n\t"
        "vpbroadcastd %%xmm0, %%ymm3\n\t"
        "vpbroadcastd %%xmm0, %%ymm4\n\t"
        "vpbroadcastd %%xmm0, %%ymm5\n\t"
        "vpbroadcastd %%xmm0, %%ymm6\n\t"
        "vpbroadcastd %%xmm0, %%ymm7\n\t"
        "vpbroadcastd %%xmm0, %%ymm8\n\t"
        "vpbroadcastd %%xmm0, %%ymm9\n\t"
        "vpbroadcastd %%xmm0, %%ymm10\n\t"
        "vpbroadcastd %%xmm0, %%ymm11\n\t"
        "vpbroadcastd %%xmm0, %%ymm12\n\t"
        "vpbroadcastd %%xmm0, %%ymm13\n\t"
        "vpbroadcastd %%xmm0, %%ymm0\n\t"
        "1:\n\t"
        "%{vex%} vpdpbusd %%ymm1, %%ymm0, %%ymm2\n\t"
        "%{vex%} vpdpbusd %%ymm1, %%ymm0, %%ymm3\n\t"
        "%{vex%} vpdpbusd %%ymm1, %%ymm0, %%ymm4\n\t"
        "%{vex%} vpdpbusd %%ymm1, %%ymm0, %%ymm5\n\t"
        "%{vex%} vpdpbusd %%ymm1, %%ymm0, %%ymm6\n\t"
        "%{vex%} vpdpbusd %%ymm1, %%ymm0, %%ymm7\n\t"
        "%{vex%} vpdpbusd %%ymm1, %%ymm0, %%ymm8\n\t"
        "%{vex%} vpdpbusd %%ymm1, %%ymm0, %%ymm9\n\t"
        "%{vex%} vpdpbusd %%ymm1, %%ymm0, %%ymm10\n\t"
        "%{vex%} vpdpbusd %%ymm1, %%ymm0, %%ymm11\n\t"
        "%{vex%} vpdpbusd %%ymm1, %%ymm0, %%ymm12\n\t"
        "%{vex%} vpdpbusd %%ymm1, %%ymm0, %%ymm13\n\t"
        "dec %0\n\t"
        "jnz 1b\n\t"
        : "+r"(left)
        : "r"(0x01010101)
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
          "xmm12", "xmm13", "cc");
    return std::uint64_t{12} * 32 * rounds;
}

}  // namespace

extern const Screen avxvnni{screen<Dot>, burn_bytes};

}  // namespace pycurate::fused_similarity
