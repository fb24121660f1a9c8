#pragma once
// The screened tile with 512-bit vectors, over a Dot that multiplies bytes. Internal linkage, see
// tiles_body.h.
#include <immintrin.h>

#include <cstring>

#include "kernels/fused_similarity/tiles.h"

namespace pycurate::fused_similarity {
namespace {

/// Sums of one row of the group with the 48 of the panel. A struct of named members, and eight named
/// variables of it below: GCC 12 keeps an array of accumulators in memory, which halves the speed.
struct RowSums {
    __m512i a, b, c;
};

template <class Dot>
RowSums add_step(RowSums sums, const std::uint8_t* group, __m512i a, __m512i b, __m512i c) noexcept {
    std::int32_t bytes;
    std::memcpy(&bytes, group, sizeof bytes);
    const __m512i row = _mm512_set1_epi32(bytes);
    return {Dot::add(sums.a, row, a), Dot::add(sums.b, row, b), Dot::add(sums.c, row, c)};
}

inline __mmask16 reaching(const RowSums& sums, std::int32_t limit) noexcept {
    const __m512i most = _mm512_max_epi32(_mm512_max_epi32(sums.a, sums.b), sums.c);
    return _mm512_cmpge_epi32_mask(most, _mm512_set1_epi32(limit));
}

inline void store_sums(const RowSums& sums, std::int32_t* out) noexcept {
    _mm512_storeu_si512(out, sums.a);
    _mm512_storeu_si512(out + 16, sums.b);
    _mm512_storeu_si512(out + 32, sums.c);
}

template <class Dot>
bool screen(const std::uint8_t* group, const std::int8_t* panel, std::size_t steps, const std::int32_t* start,
            const std::int32_t* limit, std::int32_t* out) noexcept {
    const RowSums first{_mm512_loadu_si512(start), _mm512_loadu_si512(start + 16),
                        _mm512_loadu_si512(start + 32)};
    RowSums r0 = first, r1 = first, r2 = first, r3 = first, r4 = first, r5 = first, r6 = first, r7 = first;
    for (std::size_t k = 0; k < steps; ++k, group += group_step_bytes, panel += panel_step_bytes) {
        const __m512i a = _mm512_load_si512(panel), b = _mm512_load_si512(panel + 64),
                      c = _mm512_load_si512(panel + 128);
        r0 = add_step<Dot>(r0, group, a, b, c);
        r1 = add_step<Dot>(r1, group + 4, a, b, c);
        r2 = add_step<Dot>(r2, group + 8, a, b, c);
        r3 = add_step<Dot>(r3, group + 12, a, b, c);
        r4 = add_step<Dot>(r4, group + 16, a, b, c);
        r5 = add_step<Dot>(r5, group + 20, a, b, c);
        r6 = add_step<Dot>(r6, group + 24, a, b, c);
        r7 = add_step<Dot>(r7, group + 28, a, b, c);
    }
    const unsigned any = static_cast<unsigned>(reaching(r0, limit[0])) | reaching(r1, limit[1]) |
                         reaching(r2, limit[2]) | reaching(r3, limit[3]) | reaching(r4, limit[4]) |
                         reaching(r5, limit[5]) | reaching(r6, limit[6]) | reaching(r7, limit[7]);
    if (any == 0) return false;
    store_sums(r0, out), store_sums(r1, out + 48), store_sums(r2, out + 96), store_sums(r3, out + 144);
    store_sums(r4, out + 192), store_sums(r5, out + 240), store_sums(r6, out + 288),
        store_sums(r7, out + 336);
    return true;
}

}  // namespace
}  // namespace pycurate::fused_similarity
