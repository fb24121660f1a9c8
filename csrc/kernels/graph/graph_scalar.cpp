#include "kernels/graph/sweeps_body.h"

namespace pycurate::graph {
namespace {

template <class T>
struct One {
    using Value = T;
    using Vector = T;
    static constexpr std::size_t lanes = 1;
    static T zero() noexcept { return 0; }
    static T set(T x) noexcept { return x; }
    static T load(const T* x) noexcept { return *x; }
    static void store(T x, T* out) noexcept { *out = x; }
    static T add(T x, T y) noexcept { return x + y; }
    static T subtract(T x, T y) noexcept { return x - y; }
    static T multiply(T x, T y) noexcept { return x * y; }
    static T multiply_add(T x, T y, T sum) noexcept {
        if constexpr (sizeof(T) == sizeof(float)) return __builtin_fmaf(x, y, sum);
        return static_cast<T>(__builtin_fma(x, y, sum));
    }
    static void add_sizes(T x, double* sums) noexcept { *sums += static_cast<double>(x < 0 ? -x : x); }
    static void add_products(T x, T y, double* sums) noexcept {
        *sums = __builtin_fma(static_cast<double>(x), static_cast<double>(y), *sums);
    }
};
using F = One<float>;

}  // namespace

extern const Kernels scalar{dense<F>, dense<One<double>>, top, product<F>, step<F>, turn<F>};

}  // namespace pycurate::graph
