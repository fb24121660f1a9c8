#include <immintrin.h>

#include "kernels/selection/dense.h"

namespace pycurate::selection {
namespace {

double gain(const float* similarities, const float* covered, const double* weights, std::size_t n,
            std::size_t* better) noexcept {
    __m512d low_f64x8 = _mm512_setzero_pd(), high_f64x8 = _mm512_setzero_pd();
    std::size_t found = 0;
    for (std::size_t i = 0; i < n; i += 16) {
        const auto there = static_cast<__mmask16>(n - i >= 16 ? 0xffffu : (1u << (n - i)) - 1);
        const __m512 x = _mm512_maskz_loadu_ps(there, similarities + i);
        const __m512 before = _mm512_maskz_loadu_ps(there, covered + i);
        const __mmask16 more = _mm512_cmp_ps_mask(x, before, _CMP_GT_OQ);
        if (more == 0) continue;  // adding 0 changes no sum
        found += static_cast<std::size_t>(__builtin_popcount(more));
        const __m512 larger = _mm512_max_ps(x, before);
        __m512d low = _mm512_sub_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(larger)),
                                    _mm512_cvtps_pd(_mm512_castps512_ps256(before)));
        __m512d high = _mm512_sub_pd(_mm512_cvtps_pd(_mm512_extractf32x8_ps(larger, 1)),
                                     _mm512_cvtps_pd(_mm512_extractf32x8_ps(before, 1)));
        if (weights != nullptr) {
            const auto first = static_cast<__mmask8>(there), second = static_cast<__mmask8>(there >> 8);
            low = _mm512_mul_pd(_mm512_maskz_loadu_pd(first, weights + i), low);
            high = _mm512_mul_pd(_mm512_maskz_loadu_pd(second, weights + i + 8), high);
        }
        low_f64x8 = _mm512_add_pd(low_f64x8, low);
        high_f64x8 = _mm512_add_pd(high_f64x8, high);
    }
    *better = found;
    const __m512d sums = _mm512_add_pd(low_f64x8, high_f64x8);  // +8
    const __m256d folded =
        _mm256_add_pd(_mm512_castpd512_pd256(sums), _mm512_extractf64x4_pd(sums, 1));                   // +4
    const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(folded), _mm256_extractf128_pd(folded, 1));  // +2
    return _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)));                                // +1
}

void collect(const float* similarities, const float* covered, std::size_t n, std::uint32_t* rows,
             float* collected) noexcept {
    __m512i numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (std::size_t i = 0; i < n; i += 16) {
        const auto there = static_cast<__mmask16>(n - i >= 16 ? 0xffffu : (1u << (n - i)) - 1);
        const __m512 x = _mm512_maskz_loadu_ps(there, similarities + i);
        const __mmask16 more = _mm512_cmp_ps_mask(x, _mm512_maskz_loadu_ps(there, covered + i), _CMP_GT_OQ);
        if (more != 0) {  // whole vectors are stored: compressing into memory is slow on Zen 4
            _mm512_storeu_si512(rows, _mm512_maskz_compress_epi32(more, numbers));
            _mm512_storeu_ps(collected, _mm512_maskz_compress_ps(more, x));
            const int count = __builtin_popcount(more);
            rows += count;
            collected += count;
        }
        numbers = _mm512_add_epi32(numbers, _mm512_set1_epi32(16));
    }
}

bool valid(const float* similarities, std::size_t n, bool negative) noexcept {
    const float largest = 3.40282347e+38f;
    const __m512 largest_f32x16 = _mm512_set1_ps(largest),
                 least_f32x16 = _mm512_set1_ps(negative ? -largest : 0.0f);
    unsigned bad = 0;
    for (std::size_t i = 0; i < n; i += 16) {
        const auto there = static_cast<__mmask16>(n - i >= 16 ? 0xffffu : (1u << (n - i)) - 1);
        const __m512 x = _mm512_maskz_loadu_ps(there, similarities + i);  // 0 is valid
        bad |= _mm512_cmp_ps_mask(x, least_f32x16, _CMP_NGE_UQ) |
               _mm512_cmp_ps_mask(x, largest_f32x16, _CMP_NLE_UQ);
    }
    return bad == 0;
}

void cover(const float* similarities, std::uint32_t name, float* covered, std::uint32_t* representative,
           std::size_t n) noexcept {
    const __m512i name_u32x16 = _mm512_set1_epi32(static_cast<int>(name));
    for (std::size_t i = 0; i < n; i += 16) {
        const auto there = static_cast<__mmask16>(n - i >= 16 ? 0xffffu : (1u << (n - i)) - 1);
        const __m512 x = _mm512_maskz_loadu_ps(there, similarities + i);
        const __mmask16 better =
            _mm512_mask_cmp_ps_mask(there, x, _mm512_maskz_loadu_ps(there, covered + i), _CMP_GT_OQ);
        if (better == 0) continue;
        _mm512_mask_storeu_ps(covered + i, better, x);
        _mm512_mask_storeu_epi32(representative + i, better, name_u32x16);
    }
}

}  // namespace

extern const Kernels avx512{gain, collect, valid, cover};

}  // namespace pycurate::selection
