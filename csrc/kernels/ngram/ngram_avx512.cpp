#include <immintrin.h>

#include "kernels/ngram/ngram.h"

namespace pycurate::ngram {
namespace {

/// `vectors` times 8 permutations, whose factors stay in registers while the hashes pass.
template <int vectors>
void min_hash_lanes(const std::uint64_t* hashes, std::size_t count, const std::uint64_t* a,
                    const std::uint64_t* b, __mmask8 last, std::uint32_t* out) noexcept {
    __m512i a_u64x8[vectors], b_u64x8[vectors], least_u64x8[vectors];
    for (int v = 0; v < vectors; ++v) {
        const __mmask8 valid = v + 1 == vectors ? last : static_cast<__mmask8>(0xff);
        a_u64x8[v] = _mm512_maskz_loadu_epi64(valid, a + 8 * v);
        b_u64x8[v] = _mm512_maskz_loadu_epi64(valid, b + 8 * v);
        least_u64x8[v] = _mm512_set1_epi64(-1);
    }
    for (std::size_t i = 0; i < count; ++i) {
        const __m512i key_u64x8 = _mm512_set1_epi64(static_cast<long long>(hashes[i] >> 32));
        for (int v = 0; v < vectors; ++v)
            least_u64x8[v] = _mm512_min_epu64(
                least_u64x8[v], _mm512_add_epi64(_mm512_mullo_epi64(a_u64x8[v], key_u64x8), b_u64x8[v]));
    }
    for (int v = 0; v < vectors; ++v)
        _mm512_mask_cvtepi64_storeu_epi32(out + 8 * v, v + 1 == vectors ? last : static_cast<__mmask8>(0xff),
                                          _mm512_srli_epi64(least_u64x8[v], 32));
}

void min_hash(const std::uint64_t* hashes, std::size_t count, const std::uint64_t* a, const std::uint64_t* b,
              std::size_t permutations, std::uint32_t* out) noexcept {
    std::size_t j = 0;
    for (; j + 32 <= permutations; j += 32) min_hash_lanes<4>(hashes, count, a + j, b + j, 0xff, out + j);
    for (; j < permutations; j += 8) {
        const std::size_t left = permutations - j;
        const auto last = static_cast<__mmask8>(left >= 8 ? 0xff : (1u << left) - 1);
        min_hash_lanes<1>(hashes, count, a + j, b + j, last, out + j);
    }
}

}  // namespace

extern const Kernels avx512{min_hash};

}  // namespace pycurate::ngram
