// Compiled for AVX-512 with VNNI: only the dot product of bytes differs from AVX-512, see active_kernels().
#include "kernels/fused_similarity/screen_avx512.h"

namespace pycurate::fused_similarity {
namespace {

struct Dot {
    static __m512i add(__m512i sums, __m512i row, __m512i columns) noexcept {
        return _mm512_dpbusd_epi32(sums, row, columns);
    }
};

/// Twelve independent sums that registers alone feed, in assembly so that nothing is merged, moved or stored:
/// what the machine can do at most.
std::uint64_t burn_bytes(std::size_t rounds) noexcept {
    std::size_t left = rounds;
    asm volatile(
        "vmovd %1, %%xmm0\n\t"
        "vpbroadcastd %%xmm0, %%zmm1\n\t"
        "vpbroadcastd %%xmm0, %%zmm2\n\t"
        "vpbroadcastd %%xmm0, %%zmm3\n\t"
        "vpbroadcastd %%xmm0, %%zmm4\n\t"
        "vpbroadcastd %%xmm0, %%zmm5\n\t"
        "vpbroadcastd %%xmm0, %%zmm6\n\t"
        "vpbroadcastd %%xmm0, %%zmm7\n\t"
        "vpbroadcastd %%xmm0, %%zmm8\n\t"
        "vpbroadcastd %%xmm0, %%zmm9\n\t"
        "vpbroadcastd %%xmm0, %%zmm10\n\t"
        "vpbroadcastd %%xmm0, %%zmm11\n\t"
        "vpbroadcastd %%xmm0, %%zmm12\n\t"
        "vpbroadcastd %%xmm0, %%zmm13\n\t"
        "vpbroadcastd %%xmm0, %%zmm0\n\t"
        "1:\n\t"
        "vpdpbusd %%zmm1, %%zmm0, %%zmm2\n\t"
        "vpdpbusd %%zmm1, %%zmm0, %%zmm3\n\t"
        "vpdpbusd %%zmm1, %%zmm0, %%zmm4\n\t"
        "vpdpbusd %%zmm1, %%zmm0, %%zmm5\n\t"
        "vpdpbusd %%zmm1, %%zmm0, %%zmm6\n\t"
        "vpdpbusd %%zmm1, %%zmm0, %%zmm7\n\t"
        "vpdpbusd %%zmm1, %%zmm0, %%zmm8\n\t"
        "vpdpbusd %%zmm1, %%zmm0, %%zmm9\n\t"
        "vpdpbusd %%zmm1, %%zmm0, %%zmm10\n\t"
        "vpdpbusd %%zmm1, %%zmm0, %%zmm11\n\t"
        "vpdpbusd %%zmm1, %%zmm0, %%zmm12\n\t"
        "vpdpbusd %%zmm1, %%zmm0, %%zmm13\n\t"
        "dec %0\n\t"
        "jnz 1b\n\t"
        : "+r"(left)
        : "r"(0x01010101)
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
          "xmm12", "xmm13", "cc");
    return std::uint64_t{12} * 64 * rounds;
}

}  // namespace

extern const Screen avx512vnni{screen<Dot>, burn_bytes};

}  // namespace pycurate::fused_similarity
