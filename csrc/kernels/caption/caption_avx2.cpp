#include <immintrin.h>

#include "kernels/caption/caption.h"

namespace pycurate::caption {
namespace {

std::uint32_t mask_of(__m256i bytes) noexcept {
    return static_cast<std::uint32_t>(_mm256_movemask_epi8(bytes));
}

/// 1 for the bytes from `low` to `high`.
std::uint32_t between(__m256i bytes, std::uint8_t low, std::uint8_t high) noexcept {
    const __m256i floor = _mm256_set1_epi8(static_cast<char>(low));
    const __m256i ceiling = _mm256_set1_epi8(static_cast<char>(high));
    return mask_of(_mm256_and_si256(_mm256_cmpeq_epi8(_mm256_max_epu8(bytes, floor), bytes),
                                    _mm256_cmpeq_epi8(_mm256_min_epu8(bytes, ceiling), bytes)));
}

/// See caption_avx512.cpp; the last, shorter piece is copied to where 32 bytes can be read.
std::size_t count_words(const std::uint8_t* text, std::size_t size) noexcept {
    std::size_t words = 0;
    std::uint32_t inside = 0;
    for (std::size_t i = 0; i < size; i += 32) {
        alignas(32) std::uint8_t piece[32];
        const std::uint8_t* bytes = text + i;
        std::uint32_t valid = ~std::uint32_t{0};
        if (const std::size_t left = size - i; left < 32) {
            valid = (std::uint32_t{1} << left) - 1;
            _mm256_store_si256(reinterpret_cast<__m256i*>(piece), _mm256_setzero_si256());
            __builtin_memcpy(piece, bytes, left);
            bytes = piece;
        }
        const __m256i bytes_u8x32 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
        if ((between(bytes_u8x32, 0xE1, 0xE3) | between(bytes_u8x32, 0xC2, 0xC2)) != 0)
            return scalar.count_words(text, size);
        const std::uint32_t space = between(bytes_u8x32, 0x09, 0x0D) | between(bytes_u8x32, 0x1C, 0x20);
        const std::uint32_t word = valid & ~space;
        words += static_cast<std::size_t>(_mm_popcnt_u32(word & ~(word << 1 | inside)));
        inside = word >> 31;
    }
    return words;
}

}  // namespace

extern const Kernels avx2{count_words};

}  // namespace pycurate::caption
