// Compiled with -mavx512f and its companions. See sweeps_body.h on linkage.
#include <immintrin.h>

#include "kernels/graph/sweeps_body.h"

namespace pycurate::graph {
namespace {

struct D {
    using Value = double;
    using Vector = __m512d;
    static constexpr std::size_t lanes = 8;
    static Vector zero() noexcept { return _mm512_setzero_pd(); }
    static Vector set(double x) noexcept { return _mm512_set1_pd(x); }
    static Vector load(const double* x) noexcept { return _mm512_loadu_pd(x); }
    static void store(Vector x, double* out) noexcept { _mm512_storeu_pd(out, x); }
    static Vector add(Vector x, Vector y) noexcept { return _mm512_add_pd(x, y); }
    static Vector subtract(Vector x, Vector y) noexcept { return _mm512_sub_pd(x, y); }
    static Vector multiply(Vector x, Vector y) noexcept { return _mm512_mul_pd(x, y); }
    static Vector multiply_add(Vector x, Vector y, Vector sum) noexcept { return _mm512_fmadd_pd(x, y, sum); }
    static void add_sizes(Vector x, double* sums) noexcept {
        store(add(load(sums), _mm512_andnot_pd(set(-0.0), x)), sums);
    }
};

struct F {
    using Value = float;
    using Vector = __m512;
    static constexpr std::size_t lanes = 16;
    static Vector zero() noexcept { return _mm512_setzero_ps(); }
    static Vector set(float x) noexcept { return _mm512_set1_ps(x); }
    static Vector load(const float* x) noexcept { return _mm512_loadu_ps(x); }
    static void store(Vector x, float* out) noexcept { _mm512_storeu_ps(out, x); }
    static Vector add(Vector x, Vector y) noexcept { return _mm512_add_ps(x, y); }
    static Vector subtract(Vector x, Vector y) noexcept { return _mm512_sub_ps(x, y); }
    static Vector multiply(Vector x, Vector y) noexcept { return _mm512_mul_ps(x, y); }
    static Vector multiply_add(Vector x, Vector y, Vector sum) noexcept { return _mm512_fmadd_ps(x, y, sum); }
    static __m512d low(Vector x) noexcept { return _mm512_cvtps_pd(_mm512_castps512_ps256(x)); }
    static __m512d high(Vector x) noexcept { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)); }
    static void add_sizes(Vector x, double* sums) noexcept {
        D::add_sizes(low(x), sums);
        D::add_sizes(high(x), sums + 8);
    }
    static void add_products(Vector x, Vector y, double* sums) noexcept {
        D::store(D::multiply_add(low(x), low(y), D::load(sums)), sums);
        D::store(D::multiply_add(high(x), high(y), D::load(sums + 8)), sums + 8);
    }
};

}  // namespace

extern const Kernels avx512{dense<F>, dense<D>, top, product<F>, step<F>, turn<F>};

}  // namespace pycurate::graph
