// Compiled with -mavx2. Includes only intrinsics and the family header: an inline function emitted here would
// be AVX2 code that the linker may hand to an older CPU.
#include <immintrin.h>

#include "kernels/phash/phash.h"
#include "kernels/phash/reduction.h"

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

/// Weights of two coefficients as 16-bit operands of a multiplication that adds pairs.
__m256i pair_of(std::int32_t even, std::int32_t odd) noexcept {
    return _mm256_set1_epi32((odd << 16) | (even & 0xffff));
}

/// Rows 0 to 7 of two blocks, multiplied by their quantisers; a bit of `wrong` for a product out of range.
void dequantise(const std::int16_t* a, const std::int16_t* b, const std::int16_t* quantisers, __m256i* rows,
                __m256i& wrong) noexcept {
    for (int row = 0; row < 8; ++row) {
        const __m256i coded_i16x16 = two_halves(reinterpret_cast<const std::uint8_t*>(a + 8 * row),
                                                reinterpret_cast<const std::uint8_t*>(b + 8 * row));
        const __m256i by_i16x16 = _mm256_broadcastsi128_si256(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(quantisers + 8 * row)));
        const __m256i low = _mm256_mullo_epi16(coded_i16x16, by_i16x16);
        const __m256i high = _mm256_mulhi_epi16(coded_i16x16, by_i16x16);
        // From -2^12 to 2^12 - 1: all bits from the 12th on are equal.
        wrong = _mm256_or_si256(wrong, _mm256_xor_si256(high, _mm256_srai_epi16(low, 12)));
        wrong = _mm256_or_si256(wrong, _mm256_xor_si256(high, _mm256_srai_epi16(low, 15)));
        rows[row] = low;
    }
}

/// Half of the columns of two blocks: even and odd sums for sample i, before they are added and subtracted.
struct Halves {
    __m256i even, odd;
};

template <std::size_t size, bool high>
Halves column_sums(const __m256i* rows, std::size_t i) noexcept {
    const auto paired = [](__m256i a, __m256i b) {
        return high ? _mm256_unpackhi_epi16(a, b) : _mm256_unpacklo_epi16(a, b);
    };
    const std::int32_t* weights = size == 4 ? reduction_to_4[i] : reduction_to_2;
    const __m256i odd =
        _mm256_add_epi32(_mm256_madd_epi16(paired(rows[1], rows[3]), pair_of(weights[1], weights[3])),
                         _mm256_madd_epi16(paired(rows[5], rows[7]), pair_of(weights[5], weights[7])));
    if constexpr (size == 2) return {_mm256_srai_epi32(paired(_mm256_setzero_si256(), rows[0]), 1), odd};
    const __m256i even =
        _mm256_add_epi32(_mm256_madd_epi16(paired(rows[0], rows[2]), pair_of(weights[0], weights[2])),
                         _mm256_madd_epi16(paired(rows[6], rows[4]), pair_of(weights[6], weights[4])));
    return {even, odd};
}

__m256i shifted(__m256i sums, int shift) noexcept {
    return _mm256_srai_epi32(_mm256_add_epi32(sums, _mm256_set1_epi32(1 << (shift - 1))), shift);
}

/// `size` rows of 8 columns of two blocks.
template <std::size_t size>
void reduce_columns(const __m256i* rows, __m256i* reduced, __m256i& wrong) noexcept {
    constexpr int shift = reduction_bits(size) - 2;
    for (std::size_t i = 0; i < size / 2; ++i) {
        const Halves low = column_sums<size, false>(rows, i), high = column_sums<size, true>(rows, i);
        reduced[i] = _mm256_packs_epi32(shifted(_mm256_add_epi32(low.even, low.odd), shift),
                                        shifted(_mm256_add_epi32(high.even, high.odd), shift));
        reduced[size - 1 - i] = _mm256_packs_epi32(shifted(_mm256_sub_epi32(low.even, low.odd), shift),
                                                   shifted(_mm256_sub_epi32(high.even, high.odd), shift));
    }
    for (std::size_t y = 0; y < size; ++y)  // from -2^14 to 2^14 - 1: the two highest bits are equal
        wrong = _mm256_or_si256(
            wrong, _mm256_xor_si256(_mm256_srai_epi16(reduced[y], 14), _mm256_srai_epi16(reduced[y], 15)));
}

/// The weights of all coefficients in sample i, the odd ones negated for its mirror image.
__m256i line_weights(const std::int32_t* weights, int sign, std::int32_t first) noexcept {
    const auto weight = [&](int k) {
        return static_cast<short>(k % 2 == 0 ? weights[k] : sign * weights[k]);
    };
    return _mm256_broadcastsi128_si256(_mm_setr_epi16(static_cast<short>(first), weight(1), weight(2),
                                                      weight(3), weight(4), weight(5), weight(6), weight(7)));
}

/// Four samples of each of two blocks: a row of 4, or two rows of 2.
template <std::size_t size>
__m256i reduce_rows(const __m256i* rows, __m256i& wrong) noexcept {
    __m256i sums;
    if constexpr (size == 4) {
        const __m256i row = *rows;
        const auto of = [&](std::size_t i, int sign) {
            return _mm256_madd_epi16(row, line_weights(reduction_to_4[i], sign, reduction_to_4[i][0]));
        };
        sums =
            _mm256_hadd_epi32(_mm256_hadd_epi32(of(0, 1), of(1, 1)), _mm256_hadd_epi32(of(1, -1), of(0, -1)));
    } else {
        const __m256i first = _mm256_broadcastsi128_si256(_mm_setr_epi16(16384, 0, 0, 0, 0, 0, 0, 0));
        const auto both = [&](__m256i row) {
            const __m256i even = _mm256_slli_epi32(_mm256_madd_epi16(row, first), 1);
            const __m256i odd = _mm256_madd_epi16(row, line_weights(reduction_to_2, 1, 0));
            return _mm256_hadd_epi32(_mm256_add_epi32(even, odd), _mm256_sub_epi32(even, odd));
        };
        sums = _mm256_hadd_epi32(both(rows[0]), both(rows[1]));
    }
    const __m256i samples = shifted(sums, reduction_bits(size) + 5);
    wrong = _mm256_or_si256(wrong,
                            _mm256_xor_si256(_mm256_srai_epi32(samples, 9), _mm256_srai_epi32(samples, 31)));
    return _mm256_add_epi32(samples, _mm256_set1_epi32(128));
}

template <std::size_t size>
bool reduce_pairs(const std::int16_t* coefficients, std::size_t count, const std::int16_t* quantisers,
                  std::uint8_t* out) noexcept {
    __m256i wrong = _mm256_setzero_si256();
    for (std::size_t block = 0; block < count; block += 2) {
        const std::size_t other = block + 1 < count ? block + 1 : block;
        __m256i rows[8], reduced[size];
        dequantise(coefficients + 64 * block, coefficients + 64 * other, quantisers, rows, wrong);
        reduce_columns<size>(rows, reduced, wrong);
        alignas(32) std::uint8_t pixels[32];  // of the one block and then of the other
        if constexpr (size == 4) {
            const __m256i upper =
                _mm256_packs_epi32(reduce_rows<4>(reduced, wrong), reduce_rows<4>(reduced + 1, wrong));
            const __m256i lower =
                _mm256_packs_epi32(reduce_rows<4>(reduced + 2, wrong), reduce_rows<4>(reduced + 3, wrong));
            _mm256_store_si256(reinterpret_cast<__m256i*>(pixels), _mm256_packus_epi16(upper, lower));
        } else {
            const __m256i words = _mm256_packs_epi32(reduce_rows<2>(reduced, wrong), _mm256_setzero_si256());
            _mm256_store_si256(reinterpret_cast<__m256i*>(pixels),
                               _mm256_packus_epi16(words, _mm256_setzero_si256()));
        }
        for (std::size_t y = 0; y < size; ++y) {
            std::uint8_t* at = out + size * (y * count + block);
            __builtin_memcpy(at, pixels + size * y, size);
            if (other != block) __builtin_memcpy(at + size, pixels + 16 + size * y, size);
        }
    }
    return _mm256_testz_si256(wrong, wrong) != 0;
}

bool reduce_blocks(const std::int16_t* coefficients, std::size_t count, const std::int16_t* quantisers,
                   std::size_t size, std::uint8_t* out) noexcept {
    return size == 4 ? reduce_pairs<4>(coefficients, count, quantisers, out)
                     : reduce_pairs<2>(coefficients, count, quantisers, out);
}

}  // namespace

extern const Kernels avx2{add_weighted, grey_of_rgb, grey_of_rgba, transform, reduce_blocks};

}  // namespace pycurate::phash
