#pragma once
// Scores of a tile and sums of their exponentials, over a type V of each instruction set. The same additions,
// products and fused multiply-adds in the same order everywhere, so that every instruction set gives the same
// bits. Internal linkage, see tiles_body.h.
//
// V provides Doubles, 8 float64, with load_doubles(x), widen(const float*), set_double(x), store(x, out),
// store_narrow(x, float* out), add, subtract, multiply, multiply_add(x, y, sum) rounded once, least(x, y) and
// most(x, y) which are y where one is NaN, square_root, divide, nearest (integer, ties to even),
// where_finite(x, yes, no), power(x): 2^x of integers from -1022 to 1023, above(x, y): some x[l] > y[l],
// differ(const float*, const float*): some of 8 do, and fold8(x): lane l is x[l] folded +4, +2, +1.
#include "kernels/fused_similarity/tiles.h"

namespace pycurate::fused_similarity {
namespace {

constexpr std::size_t doubles = 8;

/// Clamped to [-1, 1] and rounded to float32; NaN where `dot`, or `cosine`, is not a finite number.
template <class V>
void store_cosine(typename V::Doubles dot, typename V::Doubles cosine, float* out) noexcept {
    const auto clamped = V::most(V::set_double(-1.0), V::least(V::set_double(1.0), cosine));
    V::store_narrow(V::add(clamped, V::multiply(dot, V::set_double(0.0))), out);
}

/// Canonical cosines of 8 columns. A square root and a division for each would take a third of the time of
/// the sums of 512 coordinates: dot * (1 / |x|) * (1 / |y|) is within 2^-50 of dot / sqrt(|x|^2 |y|^2), and
/// only where numbers 2^-49 below and above it round to different float32 does the definition itself decide.
template <class V>
void cosines(typename V::Doubles dot, typename V::Doubles inverse_x, typename V::Doubles inverse_y,
             double square_x, const double* squares_y, float* out) noexcept {
    const auto cosine = V::multiply(dot, V::multiply(inverse_x, inverse_y));
    float above[doubles];
    store_cosine<V>(dot, V::multiply(cosine, V::set_double(1.0 - 0x1p-49)), out);
    store_cosine<V>(dot, V::multiply(cosine, V::set_double(1.0 + 0x1p-49)), above);
    if (!V::differ(out, above)) return;
    const auto product = V::multiply(V::set_double(square_x), V::load_doubles(squares_y));
    store_cosine<V>(dot, V::divide(dot, V::square_root(product)), out);
}

template <class V>
void scores(const float* dots, Norms rows, Norms cols, rowwise::Metric metric, float* out) noexcept {
    for (std::size_t r = 0; r < group_rows; ++r)
        for (std::size_t c = 0; c < panel_rows; c += doubles, dots += doubles, out += doubles) {
            const auto dot = V::widen(dots);
            if (metric == rowwise::Metric::cosine) {
                cosines<V>(dot, V::set_double(rows.inverses[r]), V::load_doubles(cols.inverses + c),
                           rows.squares[r], cols.squares + c, out);
            } else if (metric == rowwise::Metric::inner_product) {
                V::store_narrow(dot, out);
            } else {
                const auto squares =
                    V::add(V::set_double(rows.squares[r]), V::load_doubles(cols.squares + c));
                const auto distance = V::subtract(squares, V::add(dot, dot));
                // NaN and infinity stay what they are, to be left out.
                const auto score = V::least(V::set_double(0.0), V::subtract(V::set_double(0.0), distance));
                V::store_narrow(V::add(score, V::multiply(dot, V::set_double(0.0))), out);
            }
        }
}

/// exp(t) = 2^k * exp(r), |r| <= ln 2 / 2 but for rounding, by the series up to r^11: within 1e-14.
template <class V>
bool exponentials(const float* scores, double scale, const double* row_exponents, const double* col_exponents,
                  double* mantissas, double* exponents) noexcept {
    // Beyond 2^50 a term's last bit is worth more than a factor of 2, and r says nothing: it stays small.
    constexpr double most_term = 1e299, most_rest = 0.35;
    constexpr std::size_t terms = 12;
    constexpr double factorials[terms] = {39916800, 3628800, 362880, 40320, 5040, 720, 120, 24, 6, 2, 1, 1};
    bool beyond = false;
    for (std::size_t r = 0; r < group_rows; ++r) {
        const auto row_most = V::set_double(row_exponents[r] + exponent_room);
        for (std::size_t c = 0; c < panel_rows; c += doubles) {
            const auto score = V::widen(scores + r * panel_rows + c);
            auto term = V::multiply(score, V::set_double(scale));
            term = V::most(V::set_double(-most_term), V::least(V::set_double(most_term), term));
            auto k = V::nearest(V::multiply(term, V::set_double(1.4426950408889634)));
            auto rest = V::multiply_add(k, V::set_double(-ln2), term);
            rest = V::multiply_add(k, V::set_double(-ln2_rest), rest);
            rest = V::most(V::set_double(-most_rest), V::least(V::set_double(most_rest), rest));
            auto sum = V::set_double(1.0 / factorials[0]);
            for (std::size_t i = 1; i < terms; ++i)
                sum = V::multiply_add(sum, rest, V::set_double(1.0 / factorials[i]));
            k = V::where_finite(score, k, V::set_double(no_exponent));
            V::store(V::where_finite(score, sum, V::set_double(0.0)), mantissas + r * panel_rows + c);
            V::store(k, exponents + r * panel_rows + c);
            const auto col_most = V::add(V::load_doubles(col_exponents + c), V::set_double(exponent_room));
            beyond |= V::above(k, row_most) || V::above(k, col_most);
        }
    }
    return beyond;
}

template <class V>
void add_exponentials(const double* mantissas, const double* exponents, const double* row_exponents,
                      const double* col_exponents, double* row_sums, double* col_sums) noexcept {
    const auto in_units = [](typename V::Doubles mantissa, typename V::Doubles exponent,
                             typename V::Doubles unit) noexcept {
        const auto power = V::most(V::set_double(-1000.0), V::subtract(exponent, unit));
        return V::multiply(mantissa, V::power(power));
    };
    auto rows = V::load_doubles(row_sums);
    for (std::size_t c = 0; c < panel_rows; c += doubles) {
        const auto col_unit = V::load_doubles(col_exponents + c);
        typename V::Doubles along_rows[group_rows], along_cols[group_rows];
        for (std::size_t r = 0; r < group_rows; ++r) {
            const auto mantissa = V::load_doubles(mantissas + r * panel_rows + c),
                       exponent = V::load_doubles(exponents + r * panel_rows + c);
            along_rows[r] = in_units(mantissa, exponent, V::set_double(row_exponents[r]));
            along_cols[r] = in_units(mantissa, exponent, col_unit);
        }
        for (std::size_t half = group_rows / 2; half > 0; half /= 2)
            for (std::size_t r = 0; r < half; ++r)
                along_cols[r] = V::add(along_cols[r], along_cols[r + half]);
        rows = V::add(rows, V::fold8(along_rows));
        V::store(V::add(V::load_doubles(col_sums + c), along_cols[0]), col_sums + c);
    }
    V::store(rows, row_sums);
}

}  // namespace
}  // namespace pycurate::fused_similarity
