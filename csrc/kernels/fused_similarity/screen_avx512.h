#pragma once
// The screened tile with 512-bit vectors, over a Dot that multiplies bytes. Internal linkage, see
// tiles_body.h.
#include <immintrin.h>

#include <cstring>

#include "kernels/fused_similarity/tiles.h"

namespace pycurate::fused_similarity {
namespace {

/// Four bytes of a row to every lane.
inline __m512i spread(const std::uint8_t* group) noexcept {
    std::int32_t bytes;
    std::memcpy(&bytes, group, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}

inline unsigned reaching(__m512i a, __m512i b, __m512i c, std::int32_t limit) noexcept {
    return _mm512_cmpge_epi32_mask(_mm512_max_epi32(_mm512_max_epi32(a, b), c), _mm512_set1_epi32(limit));
}

inline void store_sums(__m512i a, __m512i b, __m512i c, std::int32_t* out) noexcept {
    _mm512_storeu_si512(out, a);
    _mm512_storeu_si512(out + 16, b);
    _mm512_storeu_si512(out + 32, c);
}

/// Every sum is a variable with a name: GCC 12 keeps arrays and structs of them in memory, at half the speed
/// (tests/kernels look at the instructions).
template <class Dot>
bool screen(const std::uint8_t* group, const std::int8_t* panel, std::size_t steps, const std::int32_t* start,
            const std::int32_t* limit, std::int32_t* out) noexcept {
    const __m512i start_a = _mm512_loadu_si512(start), start_b = _mm512_loadu_si512(start + 16),
                  start_c = _mm512_loadu_si512(start + 32);
    __m512i a0 = start_a, b0 = start_b, c0 = start_c;
    __m512i a1 = start_a, b1 = start_b, c1 = start_c;
    __m512i a2 = start_a, b2 = start_b, c2 = start_c;
    __m512i a3 = start_a, b3 = start_b, c3 = start_c;
    __m512i a4 = start_a, b4 = start_b, c4 = start_c;
    __m512i a5 = start_a, b5 = start_b, c5 = start_c;
    __m512i a6 = start_a, b6 = start_b, c6 = start_c;
    __m512i a7 = start_a, b7 = start_b, c7 = start_c;
    for (std::size_t k = 0; k < steps; ++k, group += group_step_bytes, panel += panel_step_bytes) {
        const __m512i a = _mm512_load_si512(panel), b = _mm512_load_si512(panel + 64),
                      c = _mm512_load_si512(panel + 128);
        const __m512i row0 = spread(group + 0);
        a0 = Dot::add(a0, row0, a), b0 = Dot::add(b0, row0, b), c0 = Dot::add(c0, row0, c);
        const __m512i row1 = spread(group + 4);
        a1 = Dot::add(a1, row1, a), b1 = Dot::add(b1, row1, b), c1 = Dot::add(c1, row1, c);
        const __m512i row2 = spread(group + 8);
        a2 = Dot::add(a2, row2, a), b2 = Dot::add(b2, row2, b), c2 = Dot::add(c2, row2, c);
        const __m512i row3 = spread(group + 12);
        a3 = Dot::add(a3, row3, a), b3 = Dot::add(b3, row3, b), c3 = Dot::add(c3, row3, c);
        const __m512i row4 = spread(group + 16);
        a4 = Dot::add(a4, row4, a), b4 = Dot::add(b4, row4, b), c4 = Dot::add(c4, row4, c);
        const __m512i row5 = spread(group + 20);
        a5 = Dot::add(a5, row5, a), b5 = Dot::add(b5, row5, b), c5 = Dot::add(c5, row5, c);
        const __m512i row6 = spread(group + 24);
        a6 = Dot::add(a6, row6, a), b6 = Dot::add(b6, row6, b), c6 = Dot::add(c6, row6, c);
        const __m512i row7 = spread(group + 28);
        a7 = Dot::add(a7, row7, a), b7 = Dot::add(b7, row7, b), c7 = Dot::add(c7, row7, c);
    }
    store_sums(a0, b0, c0, out + 0);
    store_sums(a1, b1, c1, out + 48);
    store_sums(a2, b2, c2, out + 96);
    store_sums(a3, b3, c3, out + 144);
    store_sums(a4, b4, c4, out + 192);
    store_sums(a5, b5, c5, out + 240);
    store_sums(a6, b6, c6, out + 288);
    store_sums(a7, b7, c7, out + 336);
    // From memory again: sums that live beyond the loop make GCC 12 store them in it.
    unsigned any = 0;
    for (std::size_t r = 0; r < group_rows; ++r, out += panel_rows)
        any |= reaching(_mm512_loadu_si512(out), _mm512_loadu_si512(out + 16), _mm512_loadu_si512(out + 32),
                        limit[r]);
    return any != 0;
}

}  // namespace
}  // namespace pycurate::fused_similarity
