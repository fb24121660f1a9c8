// Compiled with -mavx2. Includes only intrinsics and the family header: an inline function emitted here would
// be AVX2 code that the linker may hand to an older CPU.
#include <immintrin.h>

#include "kernels/uid/uid.h"

namespace pycurate::uid {
namespace {

std::size_t parse_hex(const char* text, std::size_t n, Uid* out) noexcept {
    const __m256i zero = _mm256_set1_epi8('0'), nine = _mm256_set1_epi8(9);
    const __m256i a = _mm256_set1_epi8('a'), five = _mm256_set1_epi8(5), ten = _mm256_set1_epi8(10);
    const __m256i lower_case = _mm256_set1_epi8(0x20);
    const __m256i sixteen_and_one = _mm256_set1_epi16(0x0110);
    // The first digit is the highest: reverse the bytes, which maddubs leaves at even places.
    const __m256i reverse_even =
        _mm256_setr_epi8(14, 12, 10, 8, 6, 4, 2, 0, -1, -1, -1, -1, -1, -1, -1, -1,  //
                         14, 12, 10, 8, 6, 4, 2, 0, -1, -1, -1, -1, -1, -1, -1, -1);
    for (std::size_t i = 0; i < n; ++i, text += 32) {
        const __m256i chars_u8x32 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(text));
        const __m256i digit_u8x32 = _mm256_sub_epi8(chars_u8x32, zero);
        const __m256i letter_u8x32 = _mm256_sub_epi8(_mm256_or_si256(chars_u8x32, lower_case), a);
        const __m256i is_digit = _mm256_cmpeq_epi8(_mm256_min_epu8(digit_u8x32, nine), digit_u8x32);
        const __m256i is_letter = _mm256_cmpeq_epi8(_mm256_min_epu8(letter_u8x32, five), letter_u8x32);
        if (_mm256_movemask_epi8(_mm256_or_si256(is_digit, is_letter)) != -1) return i;
        const __m256i nibble_u8x32 =
            _mm256_blendv_epi8(_mm256_add_epi8(letter_u8x32, ten), digit_u8x32, is_digit);
        const __m256i byte_u16x16 = _mm256_maddubs_epi16(nibble_u8x32, sixteen_and_one);
        const __m256i word_u64x4 = _mm256_shuffle_epi8(byte_u16x16, reverse_even);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                         _mm256_castsi256_si128(_mm256_permute4x64_epi64(word_u64x4, 0b1000)));
    }
    return n;
}

void format_hex(const Uid* uids, std::size_t n, char* text) noexcept {
    const __m256i hex =
        _mm256_setr_epi8('0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f', '0',
                         '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f');
    const __m128i big_endian = _mm_setr_epi8(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8);
    const __m256i low_nibble = _mm256_set1_epi16(15);
    for (std::size_t i = 0; i < n; ++i, text += 32) {
        const __m128i words_u64x2 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(uids + i));
        const __m256i byte_u16x16 = _mm256_cvtepu8_epi16(_mm_shuffle_epi8(words_u64x2, big_endian));
        const __m256i low_u16x16 = _mm256_slli_epi16(_mm256_and_si256(byte_u16x16, low_nibble), 8);
        const __m256i nibble_u8x32 = _mm256_or_si256(_mm256_srli_epi16(byte_u16x16, 4), low_u16x16);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(text), _mm256_shuffle_epi8(hex, nibble_u8x32));
    }
}

}  // namespace

extern const Kernels avx2{parse_hex, format_hex};

}  // namespace pycurate::uid
