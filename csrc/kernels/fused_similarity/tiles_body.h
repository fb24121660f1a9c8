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

void transpose(const float* rows, std::size_t stride, std::size_t d, const float* factors,
               float* out) noexcept {
    for (std::size_t j = 0; j < d; ++j)
        for (std::size_t l = 0; l < lanes; ++l) out[j * lanes + l] = rows[l * stride + j] * factors[l];
}

void flip(float* x, std::size_t d, const float* signs) noexcept {
    for (std::size_t j = 0; j < d; ++j)
        for (std::size_t l = 0; l < lanes; ++l) x[j * lanes + l] *= signs[j];
}

void hadamard(float* x, std::size_t d) noexcept {
    std::size_t half = 1;
    // Two levels a pass: half the loads and stores.
    for (; half * 4 <= d; half *= 4)
        for (std::size_t begin = 0; begin < d; begin += 4 * half)
            for (std::size_t j = begin * lanes; j < (begin + half) * lanes; ++j) {
                float *p = x + j, *q = p + half * lanes, *r = q + half * lanes, *s = r + half * lanes;
                const float pq = *p + *q, qp = *p - *q, rs = *r + *s, sr = *r - *s;
                *p = (pq + rs) * 0.5f, *q = (qp + sr) * 0.5f, *r = (pq - rs) * 0.5f, *s = (qp - sr) * 0.5f;
            }
    if (half < d)
        for (std::size_t j = 0; j < half * lanes; ++j) {
            const float p = x[j], q = x[j + half * lanes];
            x[j] = (p + q) * 0.70710678f, x[j + half * lanes] = (p - q) * 0.70710678f;
        }
}

void quantise(const float* x, std::size_t d, float scale, std::int8_t* out, std::int32_t* sums,
              float* squares, float* errors, float* halved_errors) noexcept {
    // Added to a float32 below 2^22 it rounds to the nearest integer, and its last bits are that integer.
    constexpr float magic = 12582912.0f;
    const float inverse = 1.0f / scale;
    for (std::size_t l = 0; l < lanes; ++l) sums[l] = 0, squares[l] = errors[l] = halved_errors[l] = 0.0f;
    for (std::size_t j = 0; j < d; j += step_coordinates, out += panel_step_bytes) {
        std::int32_t bytes[lanes] = {};
        const std::size_t count = d - j < step_coordinates ? d - j : step_coordinates;
        for (std::size_t i = 0; i < count; ++i) {
            const float* values = x + (j + i) * lanes;
            const auto shift = static_cast<int>(8 * i);
            for (std::size_t l = 0; l < lanes; ++l) {
                const float value = values[l];
                float scaled = value * inverse;
                scaled = scaled > 127.0f ? 127.0f : scaled;
                scaled = scaled < -127.0f ? -127.0f : scaled;
                const float rounded = (scaled + magic) - magic;
                const auto q = static_cast<std::int32_t>(rounded);
                const float error = value - scale * rounded;
                const float halved = value - scale * (static_cast<float>(2 * ((q + 128) >> 1)) - 127.5f);
                sums[l] += q;
                squares[l] += value * value;
                errors[l] += error * error;
                halved_errors[l] += halved * halved;
                bytes[l] |= static_cast<std::int32_t>(static_cast<std::uint32_t>(q & 0xff) << shift);
            }
        }
        __builtin_memcpy(out, bytes, sizeof bytes);
    }
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
bool bound(const std::int32_t* sums, const std::int32_t* slack, Bounds row, Bounds col, float unit,
           float extra, const float* row_limit, const float* col_limit, float* upper,
           std::uint64_t* masks) noexcept {
    std::uint64_t any = 0;
    for (std::size_t r = 0; r < group_rows; ++r) {
        const auto added = V::set(static_cast<float>(slack[r]) * unit + extra), units = V::set(unit);
        const auto factor = V::set(row.factors[r]), bias = V::set(row.biases[r]),
                   limit = V::set(row_limit[r]);
        std::uint64_t mask = 0;
        for (std::size_t c = 0; c < panel_rows; c += lanes) {
            const auto cosine = V::multiply_add(V::from_int32(sums + r * panel_rows + c), units, added);
            const auto factors = V::multiply(factor, V::load(col.factors + c));
            const auto biases = V::add(bias, V::load(col.biases + c));
            const auto score = V::multiply_add(factors, cosine, biases);
            V::store(score, upper + r * panel_rows + c);
            std::uint64_t reached = V::not_below(score, limit);
            if (col_limit != nullptr) reached |= V::not_below(score, V::load(col_limit + c));
            mask |= reached << c;
        }
        masks[r] = mask;
        any |= mask;
    }
    return any != 0;
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
