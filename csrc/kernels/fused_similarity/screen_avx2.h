#pragma once
// The screened tile with 256-bit vectors, over a Dot that multiplies bytes. Internal linkage, see
// tiles_body.h.
#include <immintrin.h>

#include <cstring>

#include "kernels/fused_similarity/tiles.h"

namespace pycurate::fused_similarity {
namespace {

/// Four bytes of a row to every lane.
inline __m256i spread(const std::uint8_t* group) noexcept {
    std::int32_t bytes;
    std::memcpy(&bytes, group, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}

inline void store_sums(__m256i a, __m256i b, std::int32_t* out) noexcept {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), a);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8), b);
}

/// Four rows by 16 columns: eight sums, each a variable with a name (see screen_avx512.h), two vectors of the
/// panel, one of the group, and what Dot needs.
template <class Dot>
void screen_block(const std::uint8_t* group, const std::int8_t* panel, std::size_t steps,
                  const std::int32_t* start, std::int32_t* out) noexcept {
    const __m256i start_a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(start)),
                  start_b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(start + 8));
    __m256i a0 = start_a, b0 = start_b;
    __m256i a1 = start_a, b1 = start_b;
    __m256i a2 = start_a, b2 = start_b;
    __m256i a3 = start_a, b3 = start_b;
    for (std::size_t k = 0; k < steps; ++k, group += group_step_bytes, panel += panel_step_bytes) {
        const __m256i a = _mm256_load_si256(reinterpret_cast<const __m256i*>(panel)),
                      b = _mm256_load_si256(reinterpret_cast<const __m256i*>(panel + 32));
        const __m256i row0 = spread(group + 0);
        a0 = Dot::add(a0, row0, a), b0 = Dot::add(b0, row0, b);
        const __m256i row1 = spread(group + 4);
        a1 = Dot::add(a1, row1, a), b1 = Dot::add(b1, row1, b);
        const __m256i row2 = spread(group + 8);
        a2 = Dot::add(a2, row2, a), b2 = Dot::add(b2, row2, b);
        const __m256i row3 = spread(group + 12);
        a3 = Dot::add(a3, row3, a), b3 = Dot::add(b3, row3, b);
    }
    store_sums(a0, b0, out + 0);
    store_sums(a1, b1, out + 48);
    store_sums(a2, b2, out + 96);
    store_sums(a3, b3, out + 144);
}

template <class Dot>
bool screen(const std::uint8_t* group, const std::int8_t* panel, std::size_t steps, const std::int32_t* start,
            const std::int32_t* limit, std::int32_t* out) noexcept {
    for (std::size_t c = 0; c < panel_rows; c += 16)
        for (std::size_t r = 0; r < group_rows; r += 4)
            screen_block<Dot>(group + r * step_coordinates, panel + c * step_coordinates, steps, start + c,
                              out + r * panel_rows + c);
    // From memory again, when all are there: GCC 12 stores sums that live beyond a loop in its every step.
    int any = 0;
    for (std::size_t r = 0; r < group_rows; ++r, out += panel_rows) {
        const auto* sums = reinterpret_cast<const __m256i*>(out);
        const __m256i most = _mm256_max_epi32(
            _mm256_max_epi32(_mm256_max_epi32(_mm256_loadu_si256(sums), _mm256_loadu_si256(sums + 1)),
                             _mm256_max_epi32(_mm256_loadu_si256(sums + 2), _mm256_loadu_si256(sums + 3))),
            _mm256_max_epi32(_mm256_loadu_si256(sums + 4), _mm256_loadu_si256(sums + 5)));
        const __m256i least = _mm256_set1_epi32(limit[r]);
        any |= _mm256_movemask_epi8(_mm256_cmpeq_epi32(_mm256_max_epi32(most, least), most));
    }
    return any != 0;
}

}  // namespace
}  // namespace pycurate::fused_similarity
