// Compiled with -mavx2. Includes only intrinsics and the family header: an inline function emitted here would
// be AVX2 code that the linker may hand to an older CPU.
#include <immintrin.h>

#include "kernels/phash/phash.h"

namespace pycurate::phash {
namespace {

void add_weighted(const std::uint8_t* grey, std::size_t n, std::uint32_t weight,
                  std::uint32_t* sums) noexcept {
    // As signed 16-bit numbers, of which the upper of each pair is 0: one multiplication and no 32-bit one.
    const __m256i weight_i32x8 = _mm256_set1_epi32(static_cast<int>(weight));
    std::size_t x = 0;
    for (; x + 8 <= n; x += 8) {
        const __m256i grey_i32x8 =
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(grey + x)));
        auto* at = reinterpret_cast<__m256i*>(sums + x);
        _mm256_storeu_si256(
            at, _mm256_add_epi32(_mm256_loadu_si256(at), _mm256_madd_epi16(grey_i32x8, weight_i32x8)));
    }
    scalar.add_weighted(grey + x, n - x, weight, sums + x);
}

/// Grey of 8 pixels, as 32-bit numbers, from (R, G) and (G, B) as pairs of 16-bit ones. The weight of G,
/// 38470, is no signed 16-bit number: it is added in halves.
__m256i grey_of(__m256i red_green, __m256i green_blue) noexcept {
    const __m256i red_green_weights = _mm256_set1_epi32(19235 << 16 | 19595);
    const __m256i green_blue_weights = _mm256_set1_epi32(7471 << 16 | 19235);
    const __m256i sum_i32x8 = _mm256_add_epi32(_mm256_madd_epi16(red_green, red_green_weights),
                                               _mm256_madd_epi16(green_blue, green_blue_weights));
    return _mm256_srli_epi32(_mm256_add_epi32(sum_i32x8, _mm256_set1_epi32(32768)), 16);
}

/// The low bytes of eight 32-bit numbers below 256.
void store_bytes(__m256i numbers_u32x8, std::uint8_t* to) noexcept {
    const __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(numbers_u32x8), _mm256_extracti128_si256(numbers_u32x8, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(words, words));
}

__m256i two_halves(const std::uint8_t* low, const std::uint8_t* high) noexcept {
    return _mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low))),
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(high)), 1);
}

void grey_of_rgb(const std::uint8_t* pixels, std::size_t n, std::uint8_t* grey) noexcept {
    const __m256i red_green = _mm256_setr_epi8(0, -1, 1, -1, 3, -1, 4, -1, 6, -1, 7, -1, 9, -1, 10, -1,  //
                                               0, -1, 1, -1, 3, -1, 4, -1, 6, -1, 7, -1, 9, -1, 10, -1);
    const __m256i green_blue = _mm256_setr_epi8(1, -1, 2, -1, 4, -1, 5, -1, 7, -1, 8, -1, 10, -1, 11, -1,  //
                                                1, -1, 2, -1, 4, -1, 5, -1, 7, -1, 8, -1, 10, -1, 11, -1);
    std::size_t x = 0;
    for (; x + 10 <= n; x += 8) {  // the second half reads 4 bytes beyond its 8 pixels
        const __m256i bytes_u8x32 = two_halves(pixels + 3 * x, pixels + 3 * x + 12);
        store_bytes(grey_of(_mm256_shuffle_epi8(bytes_u8x32, red_green),
                            _mm256_shuffle_epi8(bytes_u8x32, green_blue)),
                    grey + x);
    }
    scalar.grey_of_rgb(pixels + 3 * x, n - x, grey + x);
}

void grey_of_rgba(const std::uint8_t* pixels, std::size_t n, std::uint8_t* grey) noexcept {
    const __m256i red_green = _mm256_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1,  //
                                               0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1);
    const __m256i green_blue = _mm256_setr_epi8(1, -1, 2, -1, 5, -1, 6, -1, 9, -1, 10, -1, 13, -1, 14, -1,  //
                                                1, -1, 2, -1, 5, -1, 6, -1, 9, -1, 10, -1, 13, -1, 14, -1);
    const __m256i white = _mm256_set1_epi32(255), half = _mm256_set1_epi32(128);
    std::size_t x = 0;
    for (; x + 8 <= n; x += 8) {
        const __m256i bytes_u8x32 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(pixels + 4 * x));
        const __m256i alpha_u32x8 = _mm256_srli_epi32(bytes_u8x32, 24);
        const __m256i grey_u32x8 = grey_of(_mm256_shuffle_epi8(bytes_u8x32, red_green),
                                           _mm256_shuffle_epi8(bytes_u8x32, green_blue));
        const __m256i shown = _mm256_madd_epi16(grey_u32x8, alpha_u32x8);
        const __m256i behind = _mm256_madd_epi16(white, _mm256_sub_epi32(white, alpha_u32x8));
        const __m256i sum_u32x8 = _mm256_add_epi32(_mm256_add_epi32(shown, behind), half);
        store_bytes(_mm256_srli_epi32(_mm256_add_epi32(sum_u32x8, _mm256_srli_epi32(sum_u32x8, 8)), 8),
                    grey + x);
    }
    scalar.grey_of_rgba(pixels + 4 * x, n - x, grey + x);
}

/// Exact in any order: all sums are integers below 2^53.
void transform(const double* cells, std::size_t size, const double* cosines, std::size_t count,
               double* out) noexcept {
    for (std::size_t i = 0; i < count * count; i += 4) _mm256_storeu_pd(out + i, _mm256_setzero_pd());
    for (std::size_t u = 0; u < count; ++u)
        for (std::size_t j = 0; j < size; j += 4) {
            __m256d columns_f64x4 = _mm256_setzero_pd();
            for (std::size_t i = 0; i < size; ++i)
                columns_f64x4 = _mm256_fmadd_pd(_mm256_set1_pd(cosines[i * count + u]),
                                                _mm256_loadu_pd(cells + i * size + j), columns_f64x4);
            alignas(32) double columns[4];
            _mm256_store_pd(columns, columns_f64x4);
            for (std::size_t lane = 0; lane < 4; ++lane)
                for (std::size_t v = 0; v < count; v += 4) {
                    double* at = out + u * count + v;
                    _mm256_storeu_pd(at, _mm256_fmadd_pd(_mm256_set1_pd(columns[lane]),
                                                         _mm256_loadu_pd(cosines + (j + lane) * count + v),
                                                         _mm256_loadu_pd(at)));
                }
        }
}

}  // namespace

extern const Kernels avx2{add_weighted, grey_of_rgb, grey_of_rgba, transform};

}  // namespace pycurate::phash
