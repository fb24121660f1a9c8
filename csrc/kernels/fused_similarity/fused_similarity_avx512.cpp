// Compiled for AVX-512 F, BW, DQ, VL. Includes only intrinsics and the family's headers; see common/half.h.
#include "kernels/fused_similarity/screen_avx512.h"
#include "kernels/fused_similarity/tiles_body.h"

namespace pycurate::fused_similarity {
namespace {

/// Without VNNI: pairs of products as int16, which do not saturate since the group's bytes are halved.
struct Dot {
    static __m512i add(__m512i sums, __m512i row, __m512i columns) noexcept {
        const __m512i pairs = _mm512_maddubs_epi16(row, columns);
        return _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }
};

struct Avx512 {
    using Lanes = __m512;
    static Lanes load(const float* x) noexcept { return _mm512_loadu_ps(x); }
    static void store(Lanes x, float* out) noexcept { _mm512_storeu_ps(out, x); }
    static Lanes set(float x) noexcept { return _mm512_set1_ps(x); }
    static Lanes from_int32(const std::int32_t* x) noexcept {
        return _mm512_cvtepi32_ps(_mm512_loadu_si512(x));
    }
    static Lanes add(Lanes x, Lanes y) noexcept { return _mm512_add_ps(x, y); }
    static Lanes multiply(Lanes x, Lanes y) noexcept { return _mm512_mul_ps(x, y); }
    static Lanes multiply_add(Lanes x, Lanes y, Lanes sum) noexcept { return _mm512_fmadd_ps(x, y, sum); }
    static std::uint64_t not_below(Lanes x, Lanes y) noexcept {
        return _mm512_cmp_ps_mask(x, y, _CMP_NLT_UQ);
    }

    static constexpr std::size_t canonical_rows = 4, canonical_columns = 6;

    struct Four {
        Lanes a, b, c, d;
    };
    static Four add_column(Four sums, const Four& x, const float* column) noexcept {
        const Lanes y = load(column);
        return {multiply_add(x.a, y, sums.a), multiply_add(x.b, y, sums.b), multiply_add(x.c, y, sums.c),
                multiply_add(x.d, y, sums.d)};
    }
    static float fold(Lanes sum) noexcept {
        const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1));
        const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
        const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
        return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
    }
    static void fold(const Four& sums, float* out) noexcept {
        out[0] = fold(sums.a), out[panel_rows] = fold(sums.b);
        out[2 * panel_rows] = fold(sums.c), out[3 * panel_rows] = fold(sums.d);
    }
    static void canonical_block(const float* rows, const float* columns, std::size_t stride,
                                std::size_t width, float* out) noexcept {
        const Lanes zero = _mm512_setzero_ps();
        const Four none{zero, zero, zero, zero};
        Four s0 = none, s1 = none, s2 = none, s3 = none, s4 = none, s5 = none;
        for (std::size_t j = 0; j < width; j += lanes) {
            const float *x = rows + j, *y = columns + j;
            const Four group{load(x), load(x + stride), load(x + 2 * stride), load(x + 3 * stride)};
            s0 = add_column(s0, group, y), s1 = add_column(s1, group, y + stride);
            s2 = add_column(s2, group, y + 2 * stride), s3 = add_column(s3, group, y + 3 * stride);
            s4 = add_column(s4, group, y + 4 * stride), s5 = add_column(s5, group, y + 5 * stride);
        }
        fold(s0, out), fold(s1, out + 1), fold(s2, out + 2);
        fold(s3, out + 3), fold(s4, out + 4), fold(s5, out + 5);
    }
};

}  // namespace

extern const Kernels avx512{screen<Dot>,   true,
                            bound<Avx512>, canonical_tile<Avx512>,
                            transpose,     project<Avx512>,
                            flip,          hadamard,
                            quantise,      {copy_group<false>, copy_group<true>}};

}  // namespace pycurate::fused_similarity
