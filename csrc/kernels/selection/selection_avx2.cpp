#include <immintrin.h>

#include "kernels/selection/dense.h"

namespace pycurate::selection {
namespace {

/// Lanes 4q to 4q + 3 of what rows i to i + 3 gain; better_u32x4 counts down by one where a row does.
__m256d gained_f64x4(const float* similarities, const float* covered, const double* weights,
                     __m128i& better_u32x4) noexcept {
    const __m128 x = _mm_loadu_ps(similarities), before_f32x4 = _mm_loadu_ps(covered);
    better_u32x4 = _mm_add_epi32(better_u32x4, _mm_castps_si128(_mm_cmpgt_ps(x, before_f32x4)));
    const __m128 larger_f32x4 = _mm_max_ps(x, before_f32x4);
    const __m256d gained = _mm256_sub_pd(_mm256_cvtps_pd(larger_f32x4), _mm256_cvtps_pd(before_f32x4));
    return weights != nullptr ? _mm256_mul_pd(_mm256_loadu_pd(weights), gained) : gained;
}

double gain(const float* similarities, const float* covered, const double* weights, std::size_t n,
            std::size_t* better) noexcept {
    __m256d sums[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()};
    __m128i better_u32x4 = _mm_setzero_si128();
    std::size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (std::size_t q = 0; q < 4; ++q) {
            const std::size_t at = i + 4 * q;
            const double* own = weights != nullptr ? weights + at : nullptr;
            sums[q] =
                _mm256_add_pd(sums[q], gained_f64x4(similarities + at, covered + at, own, better_u32x4));
        }
    if (i < n) {  // zeros add nothing
        float tail[16] = {}, before[16] = {};
        double tail_weights[16] = {};
        for (std::size_t l = 0; i + l < n; ++l) {
            tail[l] = similarities[i + l];
            before[l] = covered[i + l];
            tail_weights[l] = weights != nullptr ? weights[i + l] : 1;
        }
        for (std::size_t q = 0; q < 4; ++q) {
            const std::size_t at = 4 * q;
            sums[q] =
                _mm256_add_pd(sums[q], gained_f64x4(tail + at, before + at, tail_weights + at, better_u32x4));
        }
    }
    std::int32_t counts[4];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(counts), better_u32x4);
    *better = static_cast<std::size_t>(-(counts[0] + counts[1] + counts[2] + counts[3]));
    const __m256d low = _mm256_add_pd(sums[0], sums[2]), high = _mm256_add_pd(sums[1], sums[3]);        // +8
    const __m256d folded = _mm256_add_pd(low, high);                                                    // +4
    const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(folded), _mm256_extractf128_pd(folded, 1));  // +2
    return _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)));                                // +1
}

void collect(const float* similarities, const float* covered, std::size_t n, std::uint32_t* rows,
             float* collected) noexcept {
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 more =
            _mm256_cmp_ps(_mm256_loadu_ps(similarities + i), _mm256_loadu_ps(covered + i), _CMP_GT_OQ);
        for (auto found = static_cast<unsigned>(_mm256_movemask_ps(more)); found != 0; found &= found - 1) {
            const std::size_t at = i + static_cast<std::size_t>(__builtin_ctz(found));
            *rows++ = static_cast<std::uint32_t>(at);
            *collected++ = similarities[at];
        }
    }
    for (; i < n; ++i)
        if (similarities[i] > covered[i]) {
            *rows++ = static_cast<std::uint32_t>(i);
            *collected++ = similarities[i];
        }
}

bool valid(const float* similarities, std::size_t n, bool negative) noexcept {
    const float largest = 3.40282347e+38f, least = negative ? -largest : 0.0f;
    const __m256 largest_f32x8 = _mm256_set1_ps(largest), least_f32x8 = _mm256_set1_ps(least);
    __m256 good_f32x8 = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 x = _mm256_loadu_ps(similarities + i);
        const __m256 inside = _mm256_and_ps(_mm256_cmp_ps(x, least_f32x8, _CMP_GE_OQ),
                                            _mm256_cmp_ps(x, largest_f32x8, _CMP_LE_OQ));
        good_f32x8 = _mm256_and_ps(good_f32x8, inside);
    }
    bool good = _mm256_movemask_ps(good_f32x8) == 0xff;
    for (; i < n; ++i) good = good && similarities[i] >= least && similarities[i] <= largest;
    return good;
}

void cover(const float* similarities, std::uint32_t name, float* covered, std::uint32_t* representative,
           std::size_t n) noexcept {
    const __m256 name_f32x8 = _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(name)));
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 x = _mm256_loadu_ps(similarities + i), before = _mm256_loadu_ps(covered + i);
        const __m256 better = _mm256_cmp_ps(x, before, _CMP_GT_OQ);
        if (_mm256_testz_ps(better, better)) continue;
        auto* named = reinterpret_cast<float*>(representative + i);
        _mm256_storeu_ps(covered + i, _mm256_blendv_ps(before, x, better));
        _mm256_storeu_ps(named, _mm256_blendv_ps(_mm256_loadu_ps(named), name_f32x8, better));
    }
    for (; i < n; ++i)
        if (similarities[i] > covered[i]) {
            covered[i] = similarities[i];
            representative[i] = name;
        }
}

}  // namespace

extern const Kernels avx2{gain, collect, valid, cover};

}  // namespace pycurate::selection
