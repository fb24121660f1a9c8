#pragma once
// The screened tile with 256-bit vectors, over a Dot that multiplies bytes. Internal linkage, see
// tiles_body.h.
#include <immintrin.h>

#include <cstring>

#include "kernels/fused_similarity/tiles.h"

namespace pycurate::fused_similarity {
namespace {

/// Sums of one row of the group with 16 of the panel; named variables, see screen_avx512.h.
struct RowSums {
    __m256i a, b;
};

template <class Dot>
RowSums add_step(RowSums sums, const std::uint8_t* group, __m256i a, __m256i b) noexcept {
    std::int32_t bytes;
    std::memcpy(&bytes, group, sizeof bytes);
    const __m256i row = _mm256_set1_epi32(bytes);
    return {Dot::add(sums.a, row, a), Dot::add(sums.b, row, b)};
}

inline __m256i reaching(const RowSums& sums, std::int32_t limit) noexcept {
    const __m256i below = _mm256_set1_epi32(limit == INT32_MIN ? limit : limit - 1);
    const __m256i most = _mm256_max_epi32(sums.a, sums.b);
    return limit == INT32_MIN ? _mm256_set1_epi32(-1) : _mm256_cmpgt_epi32(most, below);
}

inline void store_sums(const RowSums& sums, std::int32_t* out) noexcept {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), sums.a);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8), sums.b);
}

/// Four rows by 16 columns: eight sums, two vectors of the panel, one of the group, and what Dot needs.
template <class Dot>
bool screen_block(const std::uint8_t* group, const std::int8_t* panel, std::size_t steps,
                  const std::int32_t* start, const std::int32_t* limit, std::int32_t* out) noexcept {
    const RowSums first{_mm256_loadu_si256(reinterpret_cast<const __m256i*>(start)),
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(start + 8))};
    RowSums r0 = first, r1 = first, r2 = first, r3 = first;
    for (std::size_t k = 0; k < steps; ++k, group += group_step_bytes, panel += panel_step_bytes) {
        const __m256i a = _mm256_load_si256(reinterpret_cast<const __m256i*>(panel)),
                      b = _mm256_load_si256(reinterpret_cast<const __m256i*>(panel + 32));
        r0 = add_step<Dot>(r0, group, a, b);
        r1 = add_step<Dot>(r1, group + 4, a, b);
        r2 = add_step<Dot>(r2, group + 8, a, b);
        r3 = add_step<Dot>(r3, group + 12, a, b);
    }
    store_sums(r0, out), store_sums(r1, out + 48), store_sums(r2, out + 96), store_sums(r3, out + 144);
    const __m256i any = _mm256_or_si256(_mm256_or_si256(reaching(r0, limit[0]), reaching(r1, limit[1])),
                                        _mm256_or_si256(reaching(r2, limit[2]), reaching(r3, limit[3])));
    return _mm256_testz_si256(any, any) == 0;
}

template <class Dot>
bool screen(const std::uint8_t* group, const std::int8_t* panel, std::size_t steps, const std::int32_t* start,
            const std::int32_t* limit, std::int32_t* out) noexcept {
    bool any = false;
    for (std::size_t c = 0; c < panel_rows; c += 16)
        for (std::size_t r = 0; r < group_rows; r += 4)
            any |= screen_block<Dot>(group + r * step_coordinates, panel + c * step_coordinates, steps,
                                     start + c, limit + r, out + r * panel_rows + c);
    return any;
}

}  // namespace
}  // namespace pycurate::fused_similarity
