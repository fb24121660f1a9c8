#include <bit>
#include <cmath>
#include <limits>

#include "common/half.h"
#include "kernels/confident/confident.h"
#include "kernels/confident/logarithm.h"

namespace pycurate::confident {
namespace {

float widened(Float16 x) noexcept { return widen(x); }
float widened(float x) noexcept { return x; }
double widened(double x) noexcept { return x; }

template <class Stored, class Number>
void summarise(const Rows& rows, const Number* bounds, const Summary& out) noexcept {
    constexpr Number infinity = std::numeric_limits<Number>::infinity();
    constexpr std::size_t lanes = 16;
    for (std::size_t i = 0; i < rows.n; ++i) {
        const auto* row = reinterpret_cast<const Stored*>(static_cast<const char*>(rows.data) +
                                                          static_cast<std::ptrdiff_t>(i) * rows.stride);
        const std::int64_t label = rows.labels[i];
        Number sums[lanes] = {}, least = infinity, other = -infinity, most = -infinity;
        std::int32_t predicted = 0, confident = -1;
        unsigned count = 0;
        for (std::size_t j = 0; j < rows.k; ++j) {
            const Number p = widened(row[j]);
            sums[j % lanes] += p;
            if (p < least) least = p;
            if (p > most) {
                most = p;
                predicted = static_cast<std::int32_t>(j);
            }
            if (p > other && static_cast<std::int64_t>(j) != label) other = p;
            if (p >= bounds[j] && ++count == 1) confident = static_cast<std::int32_t>(j);
        }
        for (std::size_t half = lanes / 2; half > 0; half /= 2)
            for (std::size_t l = 0; l < half; ++l) sums[l] += sums[l + half];
        // + 0: a zero that was -0 in some lane, where an instruction set may keep either.
        out.self[i] = label < 0 ? std::numeric_limits<double>::quiet_NaN()
                                : static_cast<double>(widened(row[label])) + 0.0;
        out.other[i] = static_cast<double>(other) + 0.0;
        out.predicted[i] = predicted;
        out.guess[i] = count > 1 ? predicted : confident;
        out.sums[i] = static_cast<double>(sums[0]);
        out.least[i] = static_cast<double>(least) + 0.0;
    }
}

/// p log p.
double weighted_logarithm(double p) noexcept {
    if (!(p >= least_probability)) return 0.0;
    const std::uint64_t biased = std::bit_cast<std::uint64_t>(p) + (one_bits - root_half_bits);
    const double e = static_cast<double>(static_cast<std::int64_t>(biased >> 52) - 1023);
    const double m = std::bit_cast<double>((biased & mantissa_mask) + root_half_bits);
    const double s = (m - 1.0) / (m + 1.0), z = s * s;
    double sum = series[0];
    for (int t = 1; t < series_terms; ++t) sum = std::fma(sum, z, series[t]);
    const double low = std::fma(e, ln2_low, (s + s) * sum);
    return p * std::fma(e, ln2_high, low);
}

template <class Stored>
void entropies(const Rows& rows, double* out) noexcept {
    for (std::size_t i = 0; i < rows.n; ++i) {
        const auto* row = reinterpret_cast<const Stored*>(static_cast<const char*>(rows.data) +
                                                          static_cast<std::ptrdiff_t>(i) * rows.stride);
        double sums[entropy_lanes] = {};
        for (std::size_t j = 0; j < rows.k; ++j)
            sums[j % entropy_lanes] += weighted_logarithm(static_cast<double>(widened(row[j])));
        for (std::size_t half = entropy_lanes / 2; half > 0; half /= 2)
            for (std::size_t l = 0; l < half; ++l) sums[l] += sums[l + half];
        out[i] = 0.0 - sums[0];
    }
}

}  // namespace

extern const Kernels scalar{summarise<Float16, float>, summarise<float, float>, summarise<double, double>,
                            entropies<Float16>,        entropies<float>,        entropies<double>};

}  // namespace pycurate::confident
