#include <immintrin.h>

#include "kernels/caption/caption.h"

namespace pycurate::caption {
namespace {

__mmask64 between(__m512i bytes, char low, char count) noexcept {
    return _mm512_cmplt_epu8_mask(_mm512_sub_epi8(bytes, _mm512_set1_epi8(low)), _mm512_set1_epi8(count));
}

/// 64 bytes at a time: a word begins at a byte of a word before which stands none. Texts with a byte that may
/// begin a longer whitespace character (0xC2, 0xE1 to 0xE3) go to the scalar twin.
std::size_t count_words(const std::uint8_t* text, std::size_t size) noexcept {
    std::size_t words = 0;
    std::uint64_t inside = 0;  // 1 where the byte before belongs to a word
    for (std::size_t i = 0; i < size; i += 64) {
        const std::size_t left = size - i;
        const __mmask64 valid = left >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << left) - 1;
        const __m512i bytes_u8x64 = _mm512_maskz_loadu_epi8(valid, text + i);
        const __mmask64 longer =
            between(bytes_u8x64, static_cast<char>(0xE1), 3) |
            _mm512_cmpeq_epi8_mask(bytes_u8x64, _mm512_set1_epi8(static_cast<char>(0xC2)));
        if (longer != 0) return scalar.count_words(text, size);
        const __mmask64 space = between(bytes_u8x64, 0x09, 5) | between(bytes_u8x64, 0x1C, 5);
        const std::uint64_t word = valid & ~space;
        words += static_cast<std::size_t>(_mm_popcnt_u64(word & ~(word << 1 | inside)));
        inside = word >> 63;
    }
    return words;
}

}  // namespace

extern const Kernels avx512{count_words};

}  // namespace pycurate::caption
