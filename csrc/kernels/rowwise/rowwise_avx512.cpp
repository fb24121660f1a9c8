// Compiled for AVX-512 F, BW, DQ, VL. Includes only intrinsics and the family's headers; see common/half.h.
#include <immintrin.h>

#include "kernels/rowwise/rowwise_body.h"

namespace pycurate::rowwise {
namespace {

struct Avx512 {
    using Lanes = __m512;
    static constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

    static __mmask16 first(std::size_t count) noexcept { return static_cast<__mmask16>((1u << count) - 1u); }
    static Lanes from_bfloat16(__m256i bits) noexcept {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
    }
    static Lanes from_int8(__m128i x) noexcept { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(x)); }

    static Lanes zero() noexcept { return _mm512_setzero_ps(); }
    static Lanes load(const float* x) noexcept { return _mm512_loadu_ps(x); }
    static Lanes load(const Float16* x) noexcept {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
    }
    static Lanes load(const BFloat16* x) noexcept {
        return from_bfloat16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
    }
    static Lanes load(const std::int8_t* x) noexcept {
        return from_int8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
    }
    static Lanes load(const float* x, std::size_t count) noexcept {
        return _mm512_maskz_loadu_ps(first(count), x);
    }
    static Lanes load(const Float16* x, std::size_t count) noexcept {
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(count), x));
    }
    static Lanes load(const BFloat16* x, std::size_t count) noexcept {
        return from_bfloat16(_mm256_maskz_loadu_epi16(first(count), x));
    }
    static Lanes load(const std::int8_t* x, std::size_t count) noexcept {
        return from_int8(_mm_maskz_loadu_epi8(first(count), x));
    }

    static Lanes multiply_add(Lanes x, Lanes y, Lanes sum) noexcept { return _mm512_fmadd_ps(x, y, sum); }
    static float fold(Lanes sum) noexcept {
        const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1));
        const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
        const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
        return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
    }

    static __m512i quieted(Lanes lanes) noexcept {
        const __m512i bits = _mm512_castps_si512(lanes);
        const __mmask16 is_nan = _mm512_cmp_ps_mask(lanes, lanes, _CMP_UNORD_Q);
        return _mm512_mask_or_epi32(bits, is_nan, bits, _mm512_set1_epi32(0x00400000));
    }
    static __m256i to_bfloat16(Lanes lanes) noexcept {
        const __m512i bits = quieted(lanes);
        const __mmask16 is_number = _mm512_cmp_ps_mask(lanes, lanes, _CMP_ORD_Q);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        const __m512i half_unit = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
        const __m512i rounded = _mm512_mask_add_epi32(bits, is_number, bits, half_unit);
        return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
    }
    static void store(Lanes x, float* out, std::size_t count = 16) noexcept {
        _mm512_mask_storeu_epi32(out, first(count), quieted(x));
    }
    static void store(Lanes x, Float16* out, std::size_t count = 16) noexcept {
        _mm256_mask_storeu_epi16(out, first(count), _mm512_cvtps_ph(x, nearest));
    }
    static void store(Lanes x, BFloat16* out, std::size_t count = 16) noexcept {
        _mm256_mask_storeu_epi16(out, first(count), to_bfloat16(x));
    }

    using Wide = __m512i;
    using Integers = __m512i;
    static constexpr std::size_t integer_step = 32;
    static Integers zero_integers() noexcept { return _mm512_setzero_si512(); }
    static Wide load_integers(const std::int8_t* x) noexcept {
        return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
    }
    static Wide load_integers(const std::int8_t* x, std::size_t count) noexcept {
        return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8((__mmask32{1} << count) - 1u, x));
    }
    static Integers multiply_add_integers(Wide x, Wide y, Integers sum) noexcept {
        return _mm512_add_epi32(sum, _mm512_madd_epi16(x, y));
    }
    static std::int32_t fold_integers(Integers sum) noexcept { return _mm512_reduce_add_epi32(sum); }
};

}  // namespace

extern const Kernels avx512 = kernels_of<Avx512>;

}  // namespace pycurate::rowwise
