// Compiled with -mavx2. Includes only intrinsics and the family header: an inline function emitted here would
// be AVX2 code that the linker may hand to an older CPU.
#include <immintrin.h>

#include "kernels/threshold/threshold.h"

namespace pycurate::threshold {
namespace {

/// The rows of one vector: their keys, and all ones in the lanes that count.
struct Lanes {
    __m256i keys, counted;
};

struct Float32 {
    using Key = std::uint32_t;
    static constexpr unsigned lanes = 8;

    static Lanes load(const Key* values) noexcept {
        const __m256i zero = _mm256_setzero_si256(), sign = _mm256_set1_epi32(INT32_MIN);
        const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
        const __m256i magnitude = _mm256_andnot_si256(sign, bits);
        const __m256i flip =
            _mm256_andnot_si256(_mm256_cmpeq_epi32(magnitude, zero), _mm256_srai_epi32(bits, 31));
        return {_mm256_xor_si256(_mm256_xor_si256(magnitude, flip), sign),
                _mm256_cmpgt_epi32(_mm256_set1_epi32(0x7f80'0001), magnitude)};
    }
    static __m256i masked(const std::uint8_t* mask) noexcept {
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(mask));
        return _mm256_cmpgt_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_setzero_si256());
    }
    static __m256i equal(__m256i x, std::uint64_t y) noexcept {
        return _mm256_cmpeq_epi32(x, _mm256_set1_epi32(static_cast<int>(y)));
    }
    static __m256i shift_right(__m256i x, unsigned bits) noexcept {
        return _mm256_srl_epi32(x, _mm_cvtsi32_si128(static_cast<int>(bits)));
    }
    static unsigned to_bits(__m256i x) noexcept {
        return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(x)));
    }
};

struct Float64 {
    using Key = std::uint64_t;
    static constexpr unsigned lanes = 4;

    static Lanes load(const Key* values) noexcept {
        const __m256i zero = _mm256_setzero_si256(), sign = _mm256_set1_epi64x(INT64_MIN);
        const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
        const __m256i magnitude = _mm256_andnot_si256(sign, bits);
        const __m256i flip =
            _mm256_andnot_si256(_mm256_cmpeq_epi64(magnitude, zero), _mm256_cmpgt_epi64(zero, bits));
        return {_mm256_xor_si256(_mm256_xor_si256(magnitude, flip), sign),
                _mm256_cmpgt_epi64(_mm256_set1_epi64x(0x7ff0'0000'0000'0001), magnitude)};
    }
    static __m256i masked(const std::uint8_t* mask) noexcept {
        const __m128i bytes = _mm_loadu_si32(mask);
        return _mm256_cmpgt_epi64(_mm256_cvtepu8_epi64(bytes), _mm256_setzero_si256());
    }
    static __m256i equal(__m256i x, std::uint64_t y) noexcept {
        return _mm256_cmpeq_epi64(x, _mm256_set1_epi64x(static_cast<long long>(y)));
    }
    static __m256i shift_right(__m256i x, unsigned bits) noexcept {
        return _mm256_srl_epi64(x, _mm_cvtsi32_si128(static_cast<int>(bits)));
    }
    static unsigned to_bits(__m256i x) noexcept {
        return static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(x)));
    }
};

/// Both return the rows done, a multiple of the lanes.
///
/// 10M rows around 0.22, one Cascade Lake core at 2.5 GHz, in ms, against the scalar twin: float32 digits 9 + 9 against
/// 20 + 21, with a random mask 9 + 8 against 58 + 58; float64 13 + 27 + 10 + 10 against 24 + 37 + 24 + 24. Reading
/// alone takes 4 (float32), so 16 lanes had little left to win.
///
/// Digit 0: nearly every row counts. The others, rather than being branched around, are counted in the last
/// bin, which no number's key falls into.
template <class Float, bool has_mask>
std::size_t count_first(const typename Float::Key* values, const std::uint8_t* mask, std::size_t n,
                        std::int64_t* counts) noexcept {
    constexpr unsigned last_bin = 0xffff;
    const std::int64_t last_count = counts[last_bin];
    const __m256i ones = _mm256_set1_epi32(-1);
    alignas(32) typename Float::Key digits[Float::lanes];
    std::size_t i = 0;
    for (; i + Float::lanes <= n; i += Float::lanes) {
        Lanes rows = Float::load(values + i);
        if constexpr (has_mask) rows.counted = _mm256_and_si256(rows.counted, Float::masked(mask + i));
        const __m256i keys = _mm256_or_si256(rows.keys, _mm256_xor_si256(rows.counted, ones));
        _mm256_store_si256(reinterpret_cast<__m256i*>(digits),
                           Float::shift_right(keys, 8 * sizeof(typename Float::Key) - 16));
        for (unsigned lane = 0; lane < Float::lanes; ++lane) ++counts[digits[lane]];
    }
    counts[last_bin] = last_count;
    return i;
}

/// Later digits: few rows count.
template <class Float, bool has_mask>
std::size_t count_later(const typename Float::Key* values, const std::uint8_t* mask, std::size_t n,
                        unsigned digit, std::uint64_t prefix, std::int64_t* counts) noexcept {
    using Key = typename Float::Key;
    const unsigned shift = 8 * sizeof(Key) - 16 * (digit + 1);
    alignas(32) Key digits[Float::lanes];
    std::size_t i = 0;
    for (; i + Float::lanes <= n; i += Float::lanes) {
        Lanes rows = Float::load(values + i);
        if constexpr (has_mask) rows.counted = _mm256_and_si256(rows.counted, Float::masked(mask + i));
        const __m256i up_to_digit = Float::shift_right(rows.keys, shift);
        const __m256i equal = Float::equal(Float::shift_right(up_to_digit, 16), prefix);
        unsigned counted = Float::to_bits(_mm256_and_si256(rows.counted, equal));
        if (counted == 0) continue;
        _mm256_store_si256(reinterpret_cast<__m256i*>(digits), up_to_digit);
        for (; counted != 0; counted &= counted - 1) ++counts[digits[__builtin_ctz(counted)] & 0xffff];
    }
    return i;
}

template <class Float>
std::size_t count(const typename Float::Key* values, const std::uint8_t* mask, std::size_t n, unsigned digit,
                  std::uint64_t prefix, std::int64_t* counts) noexcept {
    if (digit == 0)
        return mask == nullptr ? count_first<Float, false>(values, mask, n, counts)
                               : count_first<Float, true>(values, mask, n, counts);
    return mask == nullptr ? count_later<Float, false>(values, mask, n, digit, prefix, counts)
                           : count_later<Float, true>(values, mask, n, digit, prefix, counts);
}

void count_f32(const std::uint32_t* values, const std::uint8_t* mask, std::size_t n, unsigned digit,
               std::uint64_t prefix, std::int64_t* counts) noexcept {
    const std::size_t done = count<Float32>(values, mask, n, digit, prefix, counts);
    scalar.count_f32(values + done, mask == nullptr ? mask : mask + done, n - done, digit, prefix, counts);
}

void count_f64(const std::uint64_t* values, const std::uint8_t* mask, std::size_t n, unsigned digit,
               std::uint64_t prefix, std::int64_t* counts) noexcept {
    const std::size_t done = count<Float64>(values, mask, n, digit, prefix, counts);
    scalar.count_f64(values + done, mask == nullptr ? mask : mask + done, n - done, digit, prefix, counts);
}

}  // namespace

extern const Kernels avx2{count_f32, count_f64};

}  // namespace pycurate::threshold
