// Compiled with -mavx2 -mfma. See sweeps_body.h on linkage.
#include <immintrin.h>

#include "kernels/graph/sweeps_body.h"

namespace pycurate::graph {
namespace {

struct D {
    using Value = double;
    using Vector = __m256d;
    static constexpr std::size_t lanes = 4;
    static Vector zero() noexcept { return _mm256_setzero_pd(); }
    static Vector set(double x) noexcept { return _mm256_set1_pd(x); }
    static Vector load(const double* x) noexcept { return _mm256_loadu_pd(x); }
    static void store(Vector x, double* out) noexcept { _mm256_storeu_pd(out, x); }
    static Vector add(Vector x, Vector y) noexcept { return _mm256_add_pd(x, y); }
    static Vector subtract(Vector x, Vector y) noexcept { return _mm256_sub_pd(x, y); }
    static Vector multiply(Vector x, Vector y) noexcept { return _mm256_mul_pd(x, y); }
    static Vector multiply_add(Vector x, Vector y, Vector sum) noexcept { return _mm256_fmadd_pd(x, y, sum); }
    static void add_sizes(Vector x, double* sums) noexcept {
        store(add(load(sums), _mm256_andnot_pd(set(-0.0), x)), sums);
    }
};

struct F {
    using Value = float;
    using Vector = __m256;
    static constexpr std::size_t lanes = 8;
    static Vector zero() noexcept { return _mm256_setzero_ps(); }
    static Vector set(float x) noexcept { return _mm256_set1_ps(x); }
    static Vector load(const float* x) noexcept { return _mm256_loadu_ps(x); }
    static void store(Vector x, float* out) noexcept { _mm256_storeu_ps(out, x); }
    static Vector add(Vector x, Vector y) noexcept { return _mm256_add_ps(x, y); }
    static Vector subtract(Vector x, Vector y) noexcept { return _mm256_sub_ps(x, y); }
    static Vector multiply(Vector x, Vector y) noexcept { return _mm256_mul_ps(x, y); }
    static Vector multiply_add(Vector x, Vector y, Vector sum) noexcept { return _mm256_fmadd_ps(x, y, sum); }
    static __m256d low(Vector x) noexcept { return _mm256_cvtps_pd(_mm256_castps256_ps128(x)); }
    static __m256d high(Vector x) noexcept { return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)); }
    static void add_sizes(Vector x, double* sums) noexcept {
        D::add_sizes(low(x), sums);
        D::add_sizes(high(x), sums + 4);
    }
    static void add_products(Vector x, Vector y, double* sums) noexcept {
        D::store(D::multiply_add(low(x), low(y), D::load(sums)), sums);
        D::store(D::multiply_add(high(x), high(y), D::load(sums + 4)), sums + 4);
    }
};

}  // namespace

extern const Kernels avx2{dense<F>, dense<D>, top, product<F>, step<F>, turn<F>};

}  // namespace pycurate::graph
