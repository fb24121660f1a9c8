// Compiled for AVX2, FMA, F16C. Includes only intrinsics and the family's headers; see common/half.h.
#include <immintrin.h>

#include "kernels/rowwise/rowwise_body.h"

namespace pycurate::rowwise {
namespace {

struct Avx2 {
    struct Lanes {
        __m256 low, high;  // lanes 0 to 7, 8 to 15
    };
    static constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

    static __m128i load128(const void* x) noexcept { return _mm_loadu_si128(static_cast<const __m128i*>(x)); }
    static __m256 from_bfloat16(__m128i bits) noexcept {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
    }
    static __m256 from_int8(__m128i x) noexcept { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)); }
    /// `count` elements of T and zeros after them; x may be unaligned.
    template <class T>
    struct Padded {
        alignas(32) T element[16];
        Padded(const T* x, std::size_t count) noexcept {
            __builtin_memset(element, 0, sizeof element);
            __builtin_memcpy(element, x, count * sizeof(T));
        }
    };

    static Lanes zero() noexcept { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
    static Lanes load(const float* x) noexcept { return {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}; }
    static Lanes load(const Float16* x) noexcept {
        return {_mm256_cvtph_ps(load128(x)), _mm256_cvtph_ps(load128(x + 8))};
    }
    static Lanes load(const BFloat16* x) noexcept {
        return {from_bfloat16(load128(x)), from_bfloat16(load128(x + 8))};
    }
    static Lanes load(const std::int8_t* x) noexcept {
        const __m128i bytes = load128(x);
        return {from_int8(bytes), from_int8(_mm_srli_si128(bytes, 8))};
    }
    template <class T>
    static Lanes load(const T* x, std::size_t count) noexcept {
        return load(Padded<T>(x, count).element);
    }

    static Lanes multiply_add(Lanes x, Lanes y, Lanes sum) noexcept {
        return {_mm256_fmadd_ps(x.low, y.low, sum.low), _mm256_fmadd_ps(x.high, y.high, sum.high)};
    }
    static float fold(Lanes sum) noexcept {
        const __m256 s8 = _mm256_add_ps(sum.low, sum.high);
        const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
        const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
        return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
    }

    static __m256i quieted(__m256 x) noexcept {
        const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
        return _mm256_or_si256(_mm256_castps_si256(x),
                               _mm256_and_si256(is_nan, _mm256_set1_epi32(0x00400000)));
    }
    static __m128i to_bfloat16(__m256 x) noexcept {
        const __m256i bits = quieted(x);
        const __m256i is_number = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_ORD_Q));
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        const __m256i half_unit =
            _mm256_and_si256(is_number, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        const __m256i upper = _mm256_srli_epi32(_mm256_add_epi32(bits, half_unit), 16);
        return _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
    }
    static void store(Lanes x, float* out) noexcept {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), quieted(x.low));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8), quieted(x.high));
    }
    static void store(Lanes x, Float16* out) noexcept {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_cvtps_ph(x.low, nearest));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 8), _mm256_cvtps_ph(x.high, nearest));
    }
    static void store(Lanes x, BFloat16* out) noexcept {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), to_bfloat16(x.low));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 8), to_bfloat16(x.high));
    }
    template <class T>
    static void store(Lanes x, T* out, std::size_t count) noexcept {
        alignas(32) T all[16];
        store(x, all);
        __builtin_memcpy(out, all, count * sizeof(T));
    }

    using Wide = __m256i;
    using Integers = __m256i;
    static constexpr std::size_t integer_step = 16;
    static Integers zero_integers() noexcept { return _mm256_setzero_si256(); }
    static Wide load_integers(const std::int8_t* x) noexcept { return _mm256_cvtepi8_epi16(load128(x)); }
    static Wide load_integers(const std::int8_t* x, std::size_t count) noexcept {
        return load_integers(Padded<std::int8_t>(x, count).element);
    }
    static Integers multiply_add_integers(Wide x, Wide y, Integers sum) noexcept {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(x, y));
    }
    static std::int32_t fold_integers(Integers sum) noexcept {
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
        return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
    }
};

}  // namespace

extern const Kernels avx2 = kernels_of<Avx2>;

}  // namespace pycurate::rowwise
