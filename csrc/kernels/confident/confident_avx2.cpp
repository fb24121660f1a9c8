// Compiled with -mavx2 -mfma -mf16c. Includes only intrinsics and headers of this family: an inline function
// emitted here would be AVX2 code that the linker may hand to an older CPU.
#include <immintrin.h>

#include "kernels/confident/confident.h"
#include "kernels/confident/logarithm.h"

namespace pycurate::confident {
namespace {

constexpr std::size_t lanes = 16;
constexpr double nan = __builtin_nan("");

struct Float32 {
    using Stored = float;
    using Number = float;
    using Vector = __m256;
    static constexpr std::size_t width = 8;
    static constexpr Number infinity = __builtin_inff();
    static Vector load(const Stored* x) noexcept { return _mm256_loadu_ps(x); }
    static Vector load_bounds(const Number* x) noexcept { return _mm256_loadu_ps(x); }
    static Number number(Stored x) noexcept { return x; }
    static Vector set(Number x) noexcept { return _mm256_set1_ps(x); }
    static void store(Vector x, Number* out) noexcept { _mm256_storeu_ps(out, x); }
    static Vector add(Vector x, Vector y) noexcept { return _mm256_add_ps(x, y); }
    static Vector least(Vector x, Vector y) noexcept { return _mm256_min_ps(x, y); }
    static Vector most(Vector x, Vector y) noexcept { return _mm256_max_ps(x, y); }
    static unsigned at_least(Vector x, Vector y) noexcept {
        return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(x, y, _CMP_GE_OQ)));
    }
    static unsigned equal(Vector x, Vector y) noexcept {
        return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(x, y, _CMP_EQ_OQ)));
    }
    static __m256d doubles(const Stored* x) noexcept { return _mm256_cvtps_pd(_mm_loadu_ps(x)); }
};

/// Bits of a float16; a type of its own, as a uint16 may not alias it elsewhere.
struct Half {
    std::uint16_t bits;
};

struct Float16 : Float32 {
    using Stored = Half;
    static __m128i bits(const Stored* x) noexcept {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
    }
    static Vector load(const Stored* x) noexcept { return _mm256_cvtph_ps(bits(x)); }
    static Number number(Stored x) noexcept { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(x.bits))); }
    static __m256d doubles(const Stored* x) noexcept {
        return _mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(x))));
    }
};

struct Float64 {
    using Stored = double;
    using Number = double;
    using Vector = __m256d;
    static constexpr std::size_t width = 4;
    static constexpr Number infinity = __builtin_inf();
    static Vector load(const Stored* x) noexcept { return _mm256_loadu_pd(x); }
    static Vector load_bounds(const Number* x) noexcept { return _mm256_loadu_pd(x); }
    static Number number(Stored x) noexcept { return x; }
    static Vector set(Number x) noexcept { return _mm256_set1_pd(x); }
    static void store(Vector x, Number* out) noexcept { _mm256_storeu_pd(out, x); }
    static Vector add(Vector x, Vector y) noexcept { return _mm256_add_pd(x, y); }
    static Vector least(Vector x, Vector y) noexcept { return _mm256_min_pd(x, y); }
    static Vector most(Vector x, Vector y) noexcept { return _mm256_max_pd(x, y); }
    static unsigned at_least(Vector x, Vector y) noexcept {
        return static_cast<unsigned>(_mm256_movemask_pd(_mm256_cmp_pd(x, y, _CMP_GE_OQ)));
    }
    static unsigned equal(Vector x, Vector y) noexcept {
        return static_cast<unsigned>(_mm256_movemask_pd(_mm256_cmp_pd(x, y, _CMP_EQ_OQ)));
    }
    static __m256d doubles(const Stored* x) noexcept { return _mm256_loadu_pd(x); }
};

/// The first j of row[j] == value, or 0.
template <class F>
std::int32_t first_equal(const typename F::Stored* row, std::size_t k, typename F::Number value) noexcept {
    const auto wanted = F::set(value);
    std::size_t j = 0;
    for (; j + F::width <= k; j += F::width)
        if (const unsigned hits = F::equal(F::load(row + j), wanted); hits != 0)
            return static_cast<std::int32_t>(j) + __builtin_ctz(hits);
    for (; j < k; ++j)
        if (F::number(row[j]) == value) return static_cast<std::int32_t>(j);
    return 0;
}

/// Classes whose p is not below its bound: how many so far, and the first.
struct Confident {
    unsigned count = 0;
    std::int32_t first = -1;
    void add(std::size_t j, unsigned hits) noexcept {
        if (count == 0) first = static_cast<std::int32_t>(j) + __builtin_ctz(hits);
        count += static_cast<unsigned>(__builtin_popcount(hits));
    }
};

/// 100,000 rows of 1,000 float32, one core of an EPYC, in ms of processor time: 21, which is 19 GB/s, against
/// 134 of the scalar twin; 400 rows in cache 0.041 against 0.50. The label's own group of 16 is taken element
/// by element, so that the largest p of the others needs one maximum and no second-largest; the class of the
/// largest p is looked for only where it is not the label.
template <class F>
void summarise(const Rows& rows, const typename F::Number* bounds, const Summary& out) noexcept {
    using Number = typename F::Number;
    constexpr std::size_t vectors = lanes / F::width;
    const std::size_t whole = rows.k - rows.k % lanes;
    for (std::size_t i = 0; i < rows.n; ++i) {
        const auto* row = reinterpret_cast<const typename F::Stored*>(
            static_cast<const char*>(rows.data) + static_cast<std::ptrdiff_t>(i) * rows.stride);
        const std::int64_t label = rows.labels[i];
        typename F::Vector sums[vectors], least = F::set(F::infinity), other = F::set(-F::infinity);
        for (std::size_t v = 0; v < vectors; ++v) sums[v] = F::set(0);
        Number others = -F::infinity;
        Confident confident;
        const std::size_t own = label < 0 ? rows.k : static_cast<std::size_t>(label) / lanes * lanes;
        for (std::size_t j = 0; j < whole; j += lanes) {
            unsigned hits[vectors], any = 0;
            for (std::size_t v = 0; v < vectors; ++v) {
                const auto p = F::load(row + j + v * F::width);
                sums[v] = F::add(sums[v], p);
                least = F::least(p, least);
                hits[v] = F::at_least(p, F::load_bounds(bounds + j + v * F::width));
                any |= hits[v];
                if (j != own) other = F::most(p, other);
            }
            if (any != 0)
                for (std::size_t v = 0; v < vectors; ++v)
                    if (hits[v] != 0) confident.add(j + v * F::width, hits[v]);
            if (j == own)
                for (std::size_t l = j; l < j + lanes; ++l)
                    if (const Number p = F::number(row[l]);
                        p > others && l != static_cast<std::size_t>(label))
                        others = p;
        }
        Number lane_sums[lanes], lane_least[F::width], lane_other[F::width];
        for (std::size_t v = 0; v < vectors; ++v) F::store(sums[v], lane_sums + v * F::width);
        F::store(least, lane_least);
        F::store(other, lane_other);
        Number smallest = F::infinity;
        for (std::size_t l = 0; l < F::width; ++l) {
            if (lane_least[l] < smallest) smallest = lane_least[l];
            if (lane_other[l] > others) others = lane_other[l];
        }
        for (std::size_t j = whole; j < rows.k; ++j) {
            const Number p = F::number(row[j]);
            lane_sums[j - whole] += p;
            if (p < smallest) smallest = p;
            if (p > others && static_cast<std::int64_t>(j) != label) others = p;
            if (p >= bounds[j]) confident.add(j, 1);
        }
        for (std::size_t half = lanes / 2; half > 0; half /= 2)
            for (std::size_t l = 0; l < half; ++l) lane_sums[l] += lane_sums[l + half];
        const Number self = label < 0 ? -F::infinity : F::number(row[label]);
        const std::int32_t predicted =
            self > others ? static_cast<std::int32_t>(label) : first_equal<F>(row, rows.k, others);
        // + 0: a zero that was -0 in some lane, where an instruction set may keep either.
        out.self[i] = label < 0 ? nan : static_cast<double>(self) + 0.0;
        out.other[i] = static_cast<double>(others) + 0.0;
        out.predicted[i] = predicted;
        out.guess[i] = confident.count > 1 ? predicted : confident.first;
        out.sums[i] = static_cast<double>(lane_sums[0]);
        out.least[i] = static_cast<double>(smallest) + 0.0;
    }
}

/// p log p of 4.
__m256d weighted_logarithms(__m256d p) noexcept {
    const __m256d one = _mm256_set1_pd(1.0);
    const __m256i biased = _mm256_add_epi64(
        _mm256_castpd_si256(p), _mm256_set1_epi64x(static_cast<long long>(one_bits - root_half_bits)));
    // An integer below 2^51 added to the bits of 1.5 * 2^52 is that number plus the integer.
    const __m256i whole = _mm256_set1_epi64x(0x4338'0000'0000'0000);
    const __m256d exponent =
        _mm256_sub_pd(_mm256_castsi256_pd(_mm256_add_epi64(_mm256_srli_epi64(biased, 52), whole)),
                      _mm256_set1_pd(0x1.8p52 + 1023));
    const __m256d m = _mm256_castsi256_pd(
        _mm256_add_epi64(_mm256_and_si256(biased, _mm256_set1_epi64x(static_cast<long long>(mantissa_mask))),
                         _mm256_set1_epi64x(static_cast<long long>(root_half_bits))));
    const __m256d s = _mm256_div_pd(_mm256_sub_pd(m, one), _mm256_add_pd(m, one)), z = _mm256_mul_pd(s, s);
    __m256d sum = _mm256_set1_pd(series[0]);
    for (int t = 1; t < series_terms; ++t) sum = _mm256_fmadd_pd(sum, z, _mm256_set1_pd(series[t]));
    const __m256d low =
        _mm256_fmadd_pd(exponent, _mm256_set1_pd(ln2_low), _mm256_mul_pd(_mm256_add_pd(s, s), sum));
    const __m256d product = _mm256_mul_pd(p, _mm256_fmadd_pd(exponent, _mm256_set1_pd(ln2_high), low));
    return _mm256_and_pd(product, _mm256_cmp_pd(p, _mm256_set1_pd(least_probability), _CMP_GE_OQ));
}

template <class F>
void entropies(const Rows& rows, double* out) noexcept {
    for (std::size_t i = 0; i < rows.n; ++i) {
        const auto* row = reinterpret_cast<const typename F::Stored*>(
            static_cast<const char*>(rows.data) + static_cast<std::ptrdiff_t>(i) * rows.stride);
        __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
        std::size_t j = 0;
        for (; j + entropy_lanes <= rows.k; j += entropy_lanes) {
            low = _mm256_add_pd(low, weighted_logarithms(F::doubles(row + j)));
            high = _mm256_add_pd(high, weighted_logarithms(F::doubles(row + j + 4)));
        }
        typename F::Stored rest[entropy_lanes] = {};
        for (std::size_t l = 0; j + l < rows.k; ++l) rest[l] = row[j + l];
        low = _mm256_add_pd(low, weighted_logarithms(F::doubles(rest)));
        high = _mm256_add_pd(high, weighted_logarithms(F::doubles(rest + 4)));
        double sums[4];
        _mm256_storeu_pd(sums, _mm256_add_pd(low, high));
        out[i] = 0.0 - ((sums[0] + sums[2]) + (sums[1] + sums[3]));
    }
}

}  // namespace

extern const Kernels avx2{summarise<Float16>, summarise<Float32>, summarise<Float64>,
                          entropies<Float16>, entropies<Float32>, entropies<Float64>};

}  // namespace pycurate::confident
