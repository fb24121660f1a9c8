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

    static float fold(Lanes sum) noexcept {
        const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1));
        const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
        const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
        return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
    }
    /// Sums are variables with names, see screen_avx512.h.
    static void canonical_block(const float* rows, const float* columns, std::size_t stride,
                                std::size_t width, float* out) noexcept {
        Lanes p0 = _mm512_setzero_ps(), q0 = _mm512_setzero_ps(), r0 = _mm512_setzero_ps(),
              s0 = _mm512_setzero_ps();
        Lanes p1 = _mm512_setzero_ps(), q1 = _mm512_setzero_ps(), r1 = _mm512_setzero_ps(),
              s1 = _mm512_setzero_ps();
        Lanes p2 = _mm512_setzero_ps(), q2 = _mm512_setzero_ps(), r2 = _mm512_setzero_ps(),
              s2 = _mm512_setzero_ps();
        Lanes p3 = _mm512_setzero_ps(), q3 = _mm512_setzero_ps(), r3 = _mm512_setzero_ps(),
              s3 = _mm512_setzero_ps();
        Lanes p4 = _mm512_setzero_ps(), q4 = _mm512_setzero_ps(), r4 = _mm512_setzero_ps(),
              s4 = _mm512_setzero_ps();
        Lanes p5 = _mm512_setzero_ps(), q5 = _mm512_setzero_ps(), r5 = _mm512_setzero_ps(),
              s5 = _mm512_setzero_ps();
        for (std::size_t j = 0; j < width; j += lanes) {
            const float *x = rows + j, *y = columns + j;
            const Lanes p = load(x), q = load(x + stride), r = load(x + 2 * stride), s = load(x + 3 * stride);
            const Lanes y0 = load(y);
            p0 = multiply_add(p, y0, p0), q0 = multiply_add(q, y0, q0), r0 = multiply_add(r, y0, r0),
            s0 = multiply_add(s, y0, s0);
            const Lanes y1 = load(y + stride);
            p1 = multiply_add(p, y1, p1), q1 = multiply_add(q, y1, q1), r1 = multiply_add(r, y1, r1),
            s1 = multiply_add(s, y1, s1);
            const Lanes y2 = load(y + 2 * stride);
            p2 = multiply_add(p, y2, p2), q2 = multiply_add(q, y2, q2), r2 = multiply_add(r, y2, r2),
            s2 = multiply_add(s, y2, s2);
            const Lanes y3 = load(y + 3 * stride);
            p3 = multiply_add(p, y3, p3), q3 = multiply_add(q, y3, q3), r3 = multiply_add(r, y3, r3),
            s3 = multiply_add(s, y3, s3);
            const Lanes y4 = load(y + 4 * stride);
            p4 = multiply_add(p, y4, p4), q4 = multiply_add(q, y4, q4), r4 = multiply_add(r, y4, r4),
            s4 = multiply_add(s, y4, s4);
            const Lanes y5 = load(y + 5 * stride);
            p5 = multiply_add(p, y5, p5), q5 = multiply_add(q, y5, q5), r5 = multiply_add(r, y5, r5),
            s5 = multiply_add(s, y5, s5);
        }
        out[0] = fold(p0), out[panel_rows + 0] = fold(q0), out[2 * panel_rows + 0] = fold(r0),
        out[3 * panel_rows + 0] = fold(s0);
        out[1] = fold(p1), out[panel_rows + 1] = fold(q1), out[2 * panel_rows + 1] = fold(r1),
        out[3 * panel_rows + 1] = fold(s1);
        out[2] = fold(p2), out[panel_rows + 2] = fold(q2), out[2 * panel_rows + 2] = fold(r2),
        out[3 * panel_rows + 2] = fold(s2);
        out[3] = fold(p3), out[panel_rows + 3] = fold(q3), out[2 * panel_rows + 3] = fold(r3),
        out[3 * panel_rows + 3] = fold(s3);
        out[4] = fold(p4), out[panel_rows + 4] = fold(q4), out[2 * panel_rows + 4] = fold(r4),
        out[3 * panel_rows + 4] = fold(s4);
        out[5] = fold(p5), out[panel_rows + 5] = fold(q5), out[2 * panel_rows + 5] = fold(r5),
        out[3 * panel_rows + 5] = fold(s5);
    }
};

}  // namespace

extern const Kernels avx512{screen<Dot>,   true,
                            bound<Avx512>, canonical_tile<Avx512>,
                            transpose,     project<Avx512>,
                            flip,          hadamard,
                            quantise,      {copy_group<false>, copy_group<true>}};

}  // namespace pycurate::fused_similarity
