// Compiled with -mavx2. Includes only intrinsics and the family header: an inline function emitted here would
// be AVX2 code that the linker may hand to an older CPU.
#include <immintrin.h>

#include "kernels/hamming/tiles.h"

namespace pycurate::hamming {
namespace {

constexpr std::size_t lanes = 4;

/// Set bits of each 64-bit lane: of nibbles by a look-up, of bytes by their sum.
__m256i count_bits(__m256i x) noexcept {
    const __m256i bits_of_nibble = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,  //
                                                    0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i count_u8x32 =
        _mm256_add_epi8(_mm256_shuffle_epi8(bits_of_nibble, _mm256_and_si256(x, low)),
                        _mm256_shuffle_epi8(bits_of_nibble, _mm256_and_si256(_mm256_srli_epi16(x, 4), low)));
    return _mm256_sad_epu8(count_u8x32, _mm256_setzero_si256());
}

std::size_t near(Planes a, std::size_t rows, Planes b, std::size_t cols, std::size_t words, unsigned radius,
                 bool upper, Hit* hits) noexcept {
    const __m256i beyond_u64x4 = _mm256_set1_epi64x(static_cast<long long>(radius) + 1);
    const __m256i lane_number = _mm256_setr_epi64x(0, 1, 2, 3);
    std::size_t found = 0;
    for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = upper ? i + 1 : 0; j < cols; j += lanes) {
            const std::size_t left = cols - j;
            const __m256i valid =
                _mm256_cmpgt_epi64(_mm256_set1_epi64x(static_cast<long long>(left)), lane_number);
            __m256i distance_u64x4 = _mm256_setzero_si256();
            for (std::size_t w = 0; w < words; ++w) {
                const auto* from = reinterpret_cast<const long long*>(b.words + w * b.stride + j);
                const __m256i code_u64x4 = left >= lanes
                                               ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))
                                               : _mm256_maskload_epi64(from, valid);
                const __m256i row_u64x4 =
                    _mm256_set1_epi64x(static_cast<long long>(a.words[w * a.stride + i]));
                distance_u64x4 =
                    _mm256_add_epi64(distance_u64x4, count_bits(_mm256_xor_si256(code_u64x4, row_u64x4)));
            }
            const __m256i within = _mm256_and_si256(valid, _mm256_cmpgt_epi64(beyond_u64x4, distance_u64x4));
            auto mask = static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(within)));
            if (mask == 0) continue;
            alignas(32) std::uint64_t distances[lanes];
            _mm256_store_si256(reinterpret_cast<__m256i*>(distances), distance_u64x4);
            for (; mask != 0; mask &= mask - 1) {
                const auto lane = static_cast<std::size_t>(__builtin_ctz(mask));
                hits[found++] = {static_cast<std::uint16_t>(i), static_cast<std::uint16_t>(j + lane),
                                 static_cast<std::uint32_t>(distances[lane])};
            }
        }
    return found;
}

}  // namespace

extern const Kernels avx2{near};

}  // namespace pycurate::hamming
