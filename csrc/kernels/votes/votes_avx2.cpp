#include <immintrin.h>

#include "kernels/votes/votes.h"

namespace pycurate::votes {
namespace {

void add_posteriors(const std::int32_t* labels, const double* counts, std::size_t m, const double* given,
                    const double* prior, std::size_t stride, double* sums, double* prior_sums,
                    double* totals) noexcept {
    for (std::size_t t = 0; t < m; ++t) {
        const std::size_t a = static_cast<std::size_t>(labels[3 * t]) * stride,
                          b = static_cast<std::size_t>(labels[3 * t + 1]) * stride,
                          c = static_cast<std::size_t>(labels[3 * t + 2]) * stride;
        const auto joint_f64x4 = [&](std::size_t k) {
            const __m256d first = _mm256_mul_pd(_mm256_loadu_pd(prior + k), _mm256_loadu_pd(given + a + k));
            return _mm256_mul_pd(_mm256_mul_pd(first, _mm256_loadu_pd(given + b + k)),
                                 _mm256_loadu_pd(given + c + k));
        };
        __m256d low_f64x4 = _mm256_setzero_pd(), high_f64x4 = _mm256_setzero_pd();
        for (std::size_t k = 0; k < stride; k += 8) {
            low_f64x4 = _mm256_add_pd(low_f64x4, joint_f64x4(k));
            high_f64x4 = _mm256_add_pd(high_f64x4, joint_f64x4(k + 4));
        }
        const __m256d folded_f64x4 = _mm256_add_pd(low_f64x4, high_f64x4);
        const __m128d pair_f64x2 =
            _mm_add_pd(_mm256_castpd256_pd128(folded_f64x4), _mm256_extractf128_pd(folded_f64x4, 1));
        const double total =
            _mm_cvtsd_f64(pair_f64x2) + _mm_cvtsd_f64(_mm_unpackhi_pd(pair_f64x2, pair_f64x2));
        totals[t] = total;
        if (!(total > 0)) continue;
        const __m256d factor_f64x4 = _mm256_set1_pd(counts[t] / total);
        const auto add = [](double* to, __m256d values) {
            _mm256_storeu_pd(to, _mm256_add_pd(_mm256_loadu_pd(to), values));
        };
        for (std::size_t k = 0; k < stride; k += 4) {
            const __m256d expected_f64x4 = _mm256_mul_pd(joint_f64x4(k), factor_f64x4);
            // One after the other, since two labels may be the same.
            add(sums + a + k, expected_f64x4);
            add(sums + b + k, expected_f64x4);
            add(sums + c + k, expected_f64x4);
            add(prior_sums + k, expected_f64x4);
        }
    }
}

}  // namespace

extern const Kernels avx2{add_posteriors};

}  // namespace pycurate::votes
