#include <immintrin.h>

#include "kernels/ngram/ngram.h"

namespace pycurate::ngram {
namespace {

__m256i load(const std::uint64_t* p) noexcept {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

/// 8 permutations at once. Keys have 32 bits, so a product takes two multiplications of 32 by 32 bits. Values
/// are kept with their highest bit flipped, as signed numbers are what AVX2 compares.
void min_hash(const std::uint64_t* hashes, std::size_t count, const std::uint64_t* a, const std::uint64_t* b,
              std::size_t permutations, std::uint32_t* out) noexcept {
    constexpr int vectors = 2;
    const __m256i sign_u64x4 = _mm256_set1_epi64x(INT64_MIN);
    std::size_t j = 0;
    for (; j + 4 * vectors <= permutations; j += 4 * vectors) {
        __m256i low_u64x4[vectors], high_u64x4[vectors], b_u64x4[vectors], least_i64x4[vectors];
        for (int v = 0; v < vectors; ++v) {
            low_u64x4[v] = load(a + j + 4 * static_cast<std::size_t>(v));
            high_u64x4[v] = _mm256_srli_epi64(low_u64x4[v], 32);
            b_u64x4[v] = _mm256_xor_si256(load(b + j + 4 * static_cast<std::size_t>(v)), sign_u64x4);
            least_i64x4[v] = _mm256_set1_epi64x(INT64_MAX);
        }
        for (std::size_t i = 0; i < count; ++i) {
            const __m256i key_u64x4 = _mm256_set1_epi64x(static_cast<long long>(hashes[i] >> 32));
            for (int v = 0; v < vectors; ++v) {
                const __m256i product_u64x4 =
                    _mm256_add_epi64(_mm256_mul_epu32(low_u64x4[v], key_u64x4),
                                     _mm256_slli_epi64(_mm256_mul_epu32(high_u64x4[v], key_u64x4), 32));
                const __m256i value_i64x4 = _mm256_add_epi64(product_u64x4, b_u64x4[v]);
                const __m256i less = _mm256_cmpgt_epi64(least_i64x4[v], value_i64x4);
                least_i64x4[v] = _mm256_blendv_epi8(least_i64x4[v], value_i64x4, less);
            }
        }
        for (int v = 0; v < vectors; ++v) {
            alignas(32) std::uint64_t least[4];
            _mm256_store_si256(reinterpret_cast<__m256i*>(least),
                               _mm256_xor_si256(least_i64x4[v], sign_u64x4));
            for (std::size_t lane = 0; lane < 4; ++lane)
                out[j + 4 * static_cast<std::size_t>(v) + lane] =
                    static_cast<std::uint32_t>(least[lane] >> 32);
        }
    }
    scalar.min_hash(hashes, count, a + j, b + j, permutations - j, out + j);
}

}  // namespace

extern const Kernels avx2{min_hash};

}  // namespace pycurate::ngram
