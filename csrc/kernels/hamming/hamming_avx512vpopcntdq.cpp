// Compiled with -mavx512vpopcntdq. Includes only intrinsics and the family header, see hamming_avx2.cpp.
#include <immintrin.h>

#include "kernels/hamming/tiles.h"

namespace pycurate::hamming {
namespace {

constexpr std::size_t lanes = 8;

std::size_t write(__mmask8 mask, __m512i distance_u64x8, std::size_t i, std::size_t j, Hit* hits) noexcept {
    alignas(64) std::uint64_t distances[lanes];
    _mm512_store_si512(distances, distance_u64x8);
    std::size_t found = 0;
    for (unsigned left = mask; left != 0; left &= left - 1) {
        const auto lane = static_cast<std::size_t>(__builtin_ctz(left));
        hits[found++] = {static_cast<std::uint16_t>(i), static_cast<std::uint16_t>(j + lane),
                         static_cast<std::uint32_t>(distances[lane])};
    }
    return found;
}

/// fixed_words: 0 for any number of words, else that of every code.
template <std::size_t fixed_words>
std::size_t near_of(Planes a, std::size_t rows, Planes b, std::size_t cols, std::size_t any_words,
                    unsigned radius, bool upper, Hit* hits) noexcept {
    const std::size_t words = fixed_words != 0 ? fixed_words : any_words;
    const __m512i radius_u64x8 = _mm512_set1_epi64(static_cast<long long>(radius));
    std::size_t found = 0;
    for (std::size_t i = 0; i < rows; ++i) {
        const auto distances = [&](std::size_t j, __mmask8 valid) noexcept {
            __m512i sum_u64x8 = _mm512_setzero_si512();
            for (std::size_t w = 0; w < words; ++w) {
                const __m512i code_u64x8 = _mm512_maskz_loadu_epi64(valid, b.words + w * b.stride + j);
                const __m512i row_u64x8 =
                    _mm512_set1_epi64(static_cast<long long>(a.words[w * a.stride + i]));
                sum_u64x8 =
                    _mm512_add_epi64(sum_u64x8, _mm512_popcnt_epi64(_mm512_xor_si512(code_u64x8, row_u64x8)));
            }
            return sum_u64x8;
        };
        std::size_t j = upper ? i + 1 : 0;
        // Four vectors share one branch: hits are rare.
        for (; j + 4 * lanes <= cols; j += 4 * lanes) {
            const __m512i d0 = distances(j, 0xff), d1 = distances(j + lanes, 0xff),
                          d2 = distances(j + 2 * lanes, 0xff), d3 = distances(j + 3 * lanes, 0xff);
            const __m512i least = _mm512_min_epu64(_mm512_min_epu64(d0, d1), _mm512_min_epu64(d2, d3));
            if (_mm512_cmple_epu64_mask(least, radius_u64x8) == 0) continue;
            const __m512i all[4] = {d0, d1, d2, d3};
            for (std::size_t v = 0; v < 4; ++v)
                found += write(_mm512_cmple_epu64_mask(all[v], radius_u64x8), all[v], i, j + v * lanes,
                               hits + found);
        }
        for (; j < cols; j += lanes) {
            const std::size_t left = cols - j;
            const auto valid = static_cast<__mmask8>(left >= lanes ? 0xff : (1u << left) - 1);
            const __m512i d = distances(j, valid);
            const __mmask8 within = _mm512_mask_cmple_epu64_mask(valid, d, radius_u64x8);
            if (within != 0) found += write(within, d, i, j, hits + found);
        }
    }
    return found;
}

std::size_t near(Planes a, std::size_t rows, Planes b, std::size_t cols, std::size_t words, unsigned radius,
                 bool upper, Hit* hits) noexcept {
    if (words == 1) return near_of<1>(a, rows, b, cols, words, radius, upper, hits);
    if (words == 4) return near_of<4>(a, rows, b, cols, words, radius, upper, hits);
    return near_of<0>(a, rows, b, cols, words, radius, upper, hits);
}

}  // namespace

extern const Kernels avx512vpopcntdq{near};

}  // namespace pycurate::hamming
