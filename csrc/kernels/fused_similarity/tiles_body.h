#pragma once
// Preparation of 16 rows at a time, lane = row, as plain loops that compilers make vectors of; and the loops
// of a tile over a type V that each instruction set defines. All of internal linkage: no file's copy serves
// another.
//
// V provides: Lanes, 16 float32, with load(x), store(lanes, out), set(x), from_int32(const int32*), add,
// multiply, multiply_add(x, y, sum) rounded once, and not_below(x, y): bit l set unless x[l] < y[l]; fold as
// in rowwise.
#include "kernels/fused_similarity/tiles.h"

namespace pycurate::fused_similarity {
namespace {

template <class V>
void transpose(const float* rows, std::size_t stride, std::size_t d, const float* factors,
               float* out) noexcept {
    const auto factor = V::load(factors);
    for (std::size_t j = 0; j < d; ++j)
        V::store(V::multiply(V::gather(rows + j, stride), factor), out + j * lanes);
}

template <class V>
void flip(float* x, std::size_t d, const float* signs) noexcept {
    for (std::size_t j = 0; j < d; ++j)
        V::store(V::multiply(V::load(x + j * lanes), V::set(signs[j])), x + j * lanes);
}

template <class V>
void hadamard(float* x, std::size_t d) noexcept {
    std::size_t half = 1;
    // Two levels a pass: half the loads and stores.
    const auto quarter = V::set(0.5f), root = V::set(0.70710678f);
    for (; half * 4 <= d; half *= 4)
        for (std::size_t begin = 0; begin < d; begin += 4 * half)
            for (std::size_t j = begin; j < begin + half; ++j) {
                float *p = x + j * lanes, *q = p + half * lanes, *r = q + half * lanes, *s = r + half * lanes;
                const auto a = V::load(p), b = V::load(q), c = V::load(r), e = V::load(s);
                const auto ab = V::add(a, b), ba = V::subtract(a, b), ce = V::add(c, e),
                           ec = V::subtract(c, e);
                V::store(V::multiply(V::add(ab, ce), quarter), p);
                V::store(V::multiply(V::add(ba, ec), quarter), q);
                V::store(V::multiply(V::subtract(ab, ce), quarter), r);
                V::store(V::multiply(V::subtract(ba, ec), quarter), s);
            }
    if (half < d)
        for (std::size_t j = 0; j < half; ++j) {
            float *p = x + j * lanes, *q = p + half * lanes;
            const auto a = V::load(p), b = V::load(q);
            V::store(V::multiply(V::add(a, b), root), p);
            V::store(V::multiply(V::subtract(a, b), root), q);
        }
}

template <class V, bool halved>
void quantise(const float* x, std::size_t d, float scale, std::int8_t* out, Sums16& sums) noexcept {
    // Added to a float32 below 2^22 it rounds to the nearest integer, and its last bits are that integer.
    const auto magic = V::set(12582912.0f);
    const auto inverse = V::set(1.0f / scale), most = V::set(127.0f), least = V::set(-127.0f),
               minus = V::set(-scale);
    auto quantised = V::load(sums.quantised), squares = V::load(sums.squares), errors = V::load(sums.errors),
         halved_errors = V::load(sums.halved_errors);
    const auto value_of = [&](std::size_t j) noexcept {
        return j < d ? V::load(x + j * lanes) : V::set(0.0f);
    };
    const auto add = [&](auto value) noexcept {
        const auto shifted = V::add(V::largest(V::least(V::multiply(value, inverse), most), least), magic);
        const auto rounded = V::subtract(shifted, magic);
        const auto error = V::multiply_add(rounded, minus, value);
        quantised = V::add(quantised, rounded);
        squares = V::multiply_add(value, value, squares);
        errors = V::multiply_add(error, error, errors);
        if constexpr (halved) {
            // (q + 128) / 2 rounded down: a quarter less is never a tie.
            const auto byte =
                V::subtract(V::add(V::multiply_add(rounded, V::set(0.5f), V::set(63.75f)), magic), magic);
            const auto middle = V::multiply_add(byte, V::set(2.0f), V::set(-127.5f));
            const auto halved_error = V::multiply_add(middle, minus, value);
            halved_errors = V::multiply_add(halved_error, halved_error, halved_errors);
        }
        return shifted;
    };
    for (std::size_t j = 0; j < d; j += step_coordinates, out += panel_step_bytes) {
        const auto p = add(value_of(j)), q = add(value_of(j + 1)), r = add(value_of(j + 2)),
                   s = add(value_of(j + 3));
        V::store_bytes(p, q, r, s, out);
    }
    V::store(quantised, sums.quantised), V::store(squares, sums.squares);
    V::store(errors, sums.errors), V::store(halved_errors, sums.halved_errors);
}

template <bool halved>
void copy_group(const std::int8_t* panel, std::size_t g, std::size_t steps, std::uint8_t* out) noexcept {
    const std::int8_t* from = panel + g * group_step_bytes;
    for (std::size_t k = 0; k < steps; ++k, from += panel_step_bytes, out += group_step_bytes)
        for (std::size_t i = 0; i < group_step_bytes; ++i) {
            const auto byte = static_cast<std::uint8_t>(static_cast<std::uint8_t>(from[i]) ^ 0x80u);
            out[i] = halved ? static_cast<std::uint8_t>(byte >> 1) : byte;
        }
}

template <class V>
void project(const float* x, std::size_t d, const float* weights, float* out) noexcept {
    typename V::Lanes s0 = V::set(0.0f), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
    for (int half = 0; half < 2; ++half, weights += 8, out += 8 * lanes) {
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = V::set(0.0f);
        for (std::size_t j = 0; j < d; ++j) {
            const float* w = weights + j * lanes;
            const auto row = V::load(x + j * lanes);
            s0 = V::multiply_add(row, V::set(w[0]), s0), s1 = V::multiply_add(row, V::set(w[1]), s1);
            s2 = V::multiply_add(row, V::set(w[2]), s2), s3 = V::multiply_add(row, V::set(w[3]), s3);
            s4 = V::multiply_add(row, V::set(w[4]), s4), s5 = V::multiply_add(row, V::set(w[5]), s5);
            s6 = V::multiply_add(row, V::set(w[6]), s6), s7 = V::multiply_add(row, V::set(w[7]), s7);
        }
        V::store(s0, out), V::store(s1, out + lanes), V::store(s2, out + 2 * lanes);
        V::store(s3, out + 3 * lanes), V::store(s4, out + 4 * lanes), V::store(s5, out + 5 * lanes);
        V::store(s6, out + 6 * lanes), V::store(s7, out + 7 * lanes);
    }
}

template <class V>
bool bound(const std::int32_t* sums, const std::int32_t* slack, const std::int32_t* col_share, Bounds row,
           Bounds col, float unit, float extra, const float* row_limit, const float* col_limit, float* upper,
           std::uint64_t* masks, std::uint64_t* near) noexcept {
    std::uint64_t any = 0;
    const auto units = V::set(unit);
    for (std::size_t r = 0; r < group_rows; ++r) {
        const auto added = V::set(static_cast<float>(slack[r]) * unit + extra);
        const auto factor = V::set(row.factors[r]), bias = V::set(row.biases[r]),
                   limit = V::set(row_limit[r]);
        const auto reaching = [&](auto score, std::size_t c) noexcept {
            std::uint64_t reached = V::not_below(score, limit);
            if (col_limit != nullptr) reached |= V::not_below(score, V::load(col_limit + c));
            return reached << c;
        };
        std::uint64_t mask = 0, near_mask = 0;
        for (std::size_t c = 0; c < panel_rows; c += lanes) {
            const auto sum = V::from_int32(sums + r * panel_rows + c);
            const auto factors = V::multiply(factor, V::load(col.factors + c));
            const auto biases = V::add(bias, V::load(col.biases + c));
            const auto score = V::multiply_add(factors, V::multiply_add(sum, units, added), biases);
            V::store(score, upper + r * panel_rows + c);
            mask |= reaching(score, c);
            if (col_share == nullptr) continue;
            const auto alone = V::multiply(V::subtract(sum, V::from_int32(col_share + c)), units);
            near_mask |= reaching(V::multiply_add(factors, alone, biases), c);
        }
        masks[r] = mask;
        if (col_share != nullptr) near[r] = near_mask;
        any |= mask;
    }
    return any != 0;
}

/// Without a branch: each becomes the middle one of itself, the next and what came.
inline void insert(std::uint64_t* best, std::size_t k, std::uint64_t found) noexcept {
    for (std::size_t p = 0; p < k; ++p) {
        const std::uint64_t larger = best[p] > found ? best[p] : found;
        best[p] = larger < best[p + 1] ? larger : best[p + 1];
    }
}

/// Four rows by six, then the fold of each sum: the sums of a canonical similarity lie along the coordinates,
/// so that a tile of them runs at the speed of a matrix product but for the folds.
template <class V>
void canonical_tile(const float* group, const float* panel, std::size_t stride, std::size_t width,
                    float* out) noexcept {
    for (std::size_t c = 0; c < panel_rows; c += V::canonical_columns)
        for (std::size_t r = 0; r < group_rows; r += V::canonical_rows)
            V::canonical_block(group + r * stride, panel + c * stride, stride, width,
                               out + r * panel_rows + c);
}

}  // namespace
}  // namespace pycurate::fused_similarity
