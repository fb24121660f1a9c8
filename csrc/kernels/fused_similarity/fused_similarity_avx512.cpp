// Compiled for AVX-512 F, BW, DQ, VL. Includes only intrinsics and the family's headers; see common/half.h.
#include "kernels/fused_similarity/exponentials_body.h"
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
    static Lanes subtract(Lanes x, Lanes y) noexcept { return _mm512_sub_ps(x, y); }
    static Lanes largest(Lanes x, Lanes y) noexcept { return _mm512_max_ps(x, y); }
    static Lanes least(Lanes x, Lanes y) noexcept { return _mm512_min_ps(x, y); }
    static Lanes gather(const float* x, std::size_t stride) noexcept {
        const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        return _mm512_i32gather_ps(_mm512_mullo_epi32(lane, _mm512_set1_epi32(static_cast<int>(stride))), x,
                                   4);
    }
    /// The lowest byte of each, the four of a lane together.
    static void store_bytes(Lanes p, Lanes q, Lanes r, Lanes s, std::int8_t* out) noexcept {
        const auto bits = [](Lanes x) { return _mm512_castps_si512(x); };
        const __m512i low =
            _mm512_mask_blend_epi8(0x2222222222222222u, bits(p), _mm512_slli_epi32(bits(q), 8));
        const __m512i high = _mm512_mask_blend_epi8(0x8888888888888888u, _mm512_slli_epi32(bits(r), 16),
                                                    _mm512_slli_epi32(bits(s), 24));
        _mm512_storeu_si512(out, _mm512_mask_blend_epi16(0xaaaaaaaau, low, high));
    }
    static std::uint64_t not_below(Lanes x, Lanes y) noexcept {
        return _mm512_cmp_ps_mask(x, y, _CMP_NLT_UQ);
    }

    static constexpr std::size_t canonical_rows = 4, canonical_columns = 6;

    using Doubles = __m512d;
    static Doubles load_doubles(const double* x) noexcept { return _mm512_loadu_pd(x); }
    static Doubles widen(const float* x) noexcept { return _mm512_cvtps_pd(_mm256_loadu_ps(x)); }
    static Doubles set_double(double x) noexcept { return _mm512_set1_pd(x); }
    static void store(Doubles x, double* out) noexcept { _mm512_storeu_pd(out, x); }
    static void store_narrow(Doubles x, float* out) noexcept { _mm256_storeu_ps(out, _mm512_cvtpd_ps(x)); }
    static Doubles add(Doubles x, Doubles y) noexcept { return _mm512_add_pd(x, y); }
    static Doubles subtract(Doubles x, Doubles y) noexcept { return _mm512_sub_pd(x, y); }
    static Doubles multiply(Doubles x, Doubles y) noexcept { return _mm512_mul_pd(x, y); }
    static Doubles divide(Doubles x, Doubles y) noexcept { return _mm512_div_pd(x, y); }
    static Doubles multiply_add(Doubles x, Doubles y, Doubles sum) noexcept {
        return _mm512_fmadd_pd(x, y, sum);
    }
    static Doubles square_root(Doubles x) noexcept { return _mm512_sqrt_pd(x); }
    static Doubles nearest(Doubles x) noexcept {
        return _mm512_roundscale_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    static Doubles least(Doubles x, Doubles y) noexcept { return _mm512_min_pd(x, y); }
    static Doubles most(Doubles x, Doubles y) noexcept { return _mm512_max_pd(x, y); }
    static Doubles where_finite(Doubles x, Doubles yes, Doubles no) noexcept {
        const __mmask8 finite = _mm512_cmp_pd_mask(_mm512_sub_pd(x, x), _mm512_setzero_pd(), _CMP_EQ_OQ);
        return _mm512_mask_blend_pd(finite, no, yes);
    }
    static Doubles power(Doubles x) noexcept {
        // The last bits of 1.5 * 2^52 + integer are that integer.
        const __m512d biased = _mm512_add_pd(x, _mm512_set1_pd(0x1.8p52 + 1023.0));
        return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(biased), 52));
    }
    static bool above(Doubles x, Doubles y) noexcept { return _mm512_cmp_pd_mask(x, y, _CMP_GT_OQ) != 0; }
    static bool differ(const float* x, const float* y) noexcept {
        return _mm256_cmp_ps_mask(_mm256_loadu_ps(x), _mm256_loadu_ps(y), _CMP_NEQ_UQ) != 0;
    }
    static Doubles fold8(const Doubles* x) noexcept {
        const auto halves = [](Doubles p, Doubles q) noexcept {
            return _mm512_add_pd(_mm512_shuffle_f64x2(p, q, 0x44), _mm512_shuffle_f64x2(p, q, 0xee));
        };
        const auto quarters = [](Doubles p, Doubles q) noexcept {
            return _mm512_add_pd(_mm512_shuffle_f64x2(p, q, 0x88), _mm512_shuffle_f64x2(p, q, 0xdd));
        };
        const Doubles even = quarters(halves(x[0], x[2]), halves(x[4], x[6])),
                      odd = quarters(halves(x[1], x[3]), halves(x[5], x[7]));
        return _mm512_add_pd(_mm512_unpacklo_pd(even, odd), _mm512_unpackhi_pd(even, odd));
    }

    // Two vectors after one level of folding each, in one: lanes of 8, of 4, of 2, of 1.
    static Lanes fold_to_8(Lanes p, Lanes q) noexcept {
        return _mm512_add_ps(_mm512_shuffle_f32x4(p, q, 0x44), _mm512_shuffle_f32x4(p, q, 0xee));
    }
    static Lanes fold_to_4(Lanes p, Lanes q) noexcept {
        return _mm512_add_ps(_mm512_shuffle_f32x4(p, q, 0x88), _mm512_shuffle_f32x4(p, q, 0xdd));
    }
    static Lanes fold_to_2(Lanes p, Lanes q) noexcept {
        return _mm512_add_ps(_mm512_shuffle_ps(p, q, 0x44), _mm512_shuffle_ps(p, q, 0xee));
    }
    static Lanes fold_to_1(Lanes p, Lanes q) noexcept {
        return _mm512_add_ps(_mm512_shuffle_ps(p, q, 0x88), _mm512_shuffle_ps(p, q, 0xdd));
    }
    /// Column `c` of four rows of sums [4][6][16], four lanes each.
    static Lanes fold_column(const float* sums, std::size_t c) noexcept {
        const float* x = sums + c * lanes;
        constexpr std::size_t row = canonical_columns * lanes;
        return fold_to_4(fold_to_8(load(x), load(x + row)), fold_to_8(load(x + 2 * row), load(x + 3 * row)));
    }
    /// Sums [4][6][16] folded +8, +4, +2, +1 side by side: 45 instructions for 16 sums, not 128.
    static void fold(const float* sums, float* out) noexcept {
        const Lanes first = fold_to_1(fold_to_2(fold_column(sums, 0), fold_column(sums, 1)),
                                      fold_to_2(fold_column(sums, 2), fold_column(sums, 3)));
        const Lanes last = fold_to_2(fold_column(sums, 4), fold_column(sums, 5)),
                    last2 = fold_to_1(last, last);
        _mm_storeu_ps(out, _mm512_castps512_ps128(first));
        _mm_storeu_ps(out + panel_rows, _mm512_extractf32x4_ps(first, 1));
        _mm_storeu_ps(out + 2 * panel_rows, _mm512_extractf32x4_ps(first, 2));
        _mm_storeu_ps(out + 3 * panel_rows, _mm512_extractf32x4_ps(first, 3));
        _mm_storel_pi(reinterpret_cast<__m64*>(out + 4), _mm512_castps512_ps128(last2));
        _mm_storel_pi(reinterpret_cast<__m64*>(out + panel_rows + 4), _mm512_extractf32x4_ps(last2, 1));
        _mm_storel_pi(reinterpret_cast<__m64*>(out + 2 * panel_rows + 4), _mm512_extractf32x4_ps(last2, 2));
        _mm_storel_pi(reinterpret_cast<__m64*>(out + 3 * panel_rows + 4), _mm512_extractf32x4_ps(last2, 3));
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
        // Through memory: sums that live beyond the loop make GCC 12 store them in it.
        alignas(64) float sums[canonical_rows][canonical_columns][lanes];
        store(p0, sums[0][0]), store(q0, sums[1][0]), store(r0, sums[2][0]), store(s0, sums[3][0]);
        store(p1, sums[0][1]), store(q1, sums[1][1]), store(r1, sums[2][1]), store(s1, sums[3][1]);
        store(p2, sums[0][2]), store(q2, sums[1][2]), store(r2, sums[2][2]), store(s2, sums[3][2]);
        store(p3, sums[0][3]), store(q3, sums[1][3]), store(r3, sums[2][3]), store(s3, sums[3][3]);
        store(p4, sums[0][4]), store(q4, sums[1][4]), store(r4, sums[2][4]), store(s4, sums[3][4]);
        store(p5, sums[0][5]), store(q5, sums[1][5]), store(r5, sums[2][5]), store(s5, sums[3][5]);
        fold(sums[0][0], out);
    }
};

/// Twelve independent sums that registers alone feed, in assembly so that nothing is merged, moved or stored:
/// what the machine can do at most.
std::uint64_t burn_bytes(std::size_t rounds) noexcept {
    std::size_t left = rounds;
    asm volatile(
        "vmovd %1, %%xmm0\n\t"
        "vpbroadcastd %%xmm0, %%zmm1\n\t"
        "vpbroadcastd %%xmm0, %%zmm2\n\t"
        "vpbroadcastd %%xmm0, %%zmm3\n\t"
        "vpbroadcastd %%xmm0, %%zmm4\n\t"
        "vpbroadcastd %%xmm0, %%zmm5\n\t"
        "vpbroadcastd %%xmm0, %%zmm6\n\t"
        "vpbroadcastd %%xmm0, %%zmm7\n\t"
        "vpbroadcastd %%xmm0, %%zmm8\n\t"
        "vpbroadcastd %%xmm0, %%zmm9\n\t"
        "vpbroadcastd %%xmm0, %%zmm10\n\t"
        "vpbroadcastd %%xmm0, %%zmm11\n\t"
        "vpbroadcastd %%xmm0, %%zmm12\n\t"
        "vpbroadcastd %%xmm0, %%zmm13\n\t"
        "vpbroadcastd %%xmm0, %%zmm14\n\t"
        "vpbroadcastd %%xmm0, %%zmm15\n\t"
        "vpbroadcastd %%xmm0, %%zmm16\n\t"
        "vpbroadcastd %%xmm0, %%zmm17\n\t"
        "vpbroadcastd %%xmm0, %%zmm18\n\t"
        "vpbroadcastd %%xmm0, %%zmm0\n\t"
        "1:\n\t"
        "vpmaddubsw %%zmm1, %%zmm0, %%zmm16\n\t"
        "vpmaddwd %%zmm18, %%zmm16, %%zmm16\n\t"
        "vpaddd %%zmm16, %%zmm2, %%zmm2\n\t"
        "vpmaddubsw %%zmm1, %%zmm0, %%zmm17\n\t"
        "vpmaddwd %%zmm18, %%zmm17, %%zmm17\n\t"
        "vpaddd %%zmm17, %%zmm3, %%zmm3\n\t"
        "vpmaddubsw %%zmm1, %%zmm0, %%zmm14\n\t"
        "vpmaddwd %%zmm18, %%zmm14, %%zmm14\n\t"
        "vpaddd %%zmm14, %%zmm4, %%zmm4\n\t"
        "vpmaddubsw %%zmm1, %%zmm0, %%zmm15\n\t"
        "vpmaddwd %%zmm18, %%zmm15, %%zmm15\n\t"
        "vpaddd %%zmm15, %%zmm5, %%zmm5\n\t"
        "vpmaddubsw %%zmm1, %%zmm0, %%zmm16\n\t"
        "vpmaddwd %%zmm18, %%zmm16, %%zmm16\n\t"
        "vpaddd %%zmm16, %%zmm6, %%zmm6\n\t"
        "vpmaddubsw %%zmm1, %%zmm0, %%zmm17\n\t"
        "vpmaddwd %%zmm18, %%zmm17, %%zmm17\n\t"
        "vpaddd %%zmm17, %%zmm7, %%zmm7\n\t"
        "vpmaddubsw %%zmm1, %%zmm0, %%zmm14\n\t"
        "vpmaddwd %%zmm18, %%zmm14, %%zmm14\n\t"
        "vpaddd %%zmm14, %%zmm8, %%zmm8\n\t"
        "vpmaddubsw %%zmm1, %%zmm0, %%zmm15\n\t"
        "vpmaddwd %%zmm18, %%zmm15, %%zmm15\n\t"
        "vpaddd %%zmm15, %%zmm9, %%zmm9\n\t"
        "vpmaddubsw %%zmm1, %%zmm0, %%zmm16\n\t"
        "vpmaddwd %%zmm18, %%zmm16, %%zmm16\n\t"
        "vpaddd %%zmm16, %%zmm10, %%zmm10\n\t"
        "vpmaddubsw %%zmm1, %%zmm0, %%zmm17\n\t"
        "vpmaddwd %%zmm18, %%zmm17, %%zmm17\n\t"
        "vpaddd %%zmm17, %%zmm11, %%zmm11\n\t"
        "vpmaddubsw %%zmm1, %%zmm0, %%zmm14\n\t"
        "vpmaddwd %%zmm18, %%zmm14, %%zmm14\n\t"
        "vpaddd %%zmm14, %%zmm12, %%zmm12\n\t"
        "vpmaddubsw %%zmm1, %%zmm0, %%zmm15\n\t"
        "vpmaddwd %%zmm18, %%zmm15, %%zmm15\n\t"
        "vpaddd %%zmm15, %%zmm13, %%zmm13\n\t"
        "dec %0\n\t"
        "jnz 1b\n\t"
        : "+r"(left)
        : "r"(0x01010101)
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
          "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "cc");
    return std::uint64_t{12} * 64 * rounds;
}

std::uint64_t burn_floats(std::size_t rounds) noexcept {
    std::size_t left = rounds;
    asm volatile(
        "vmovd %1, %%xmm0\n\t"
        "vpbroadcastd %%xmm0, %%zmm1\n\t"
        "vpbroadcastd %%xmm0, %%zmm2\n\t"
        "vpbroadcastd %%xmm0, %%zmm3\n\t"
        "vpbroadcastd %%xmm0, %%zmm4\n\t"
        "vpbroadcastd %%xmm0, %%zmm5\n\t"
        "vpbroadcastd %%xmm0, %%zmm6\n\t"
        "vpbroadcastd %%xmm0, %%zmm7\n\t"
        "vpbroadcastd %%xmm0, %%zmm8\n\t"
        "vpbroadcastd %%xmm0, %%zmm9\n\t"
        "vpbroadcastd %%xmm0, %%zmm10\n\t"
        "vpbroadcastd %%xmm0, %%zmm11\n\t"
        "vpbroadcastd %%xmm0, %%zmm12\n\t"
        "vpbroadcastd %%xmm0, %%zmm13\n\t"
        "vpbroadcastd %%xmm0, %%zmm0\n\t"
        "1:\n\t"
        "vfmadd231ps %%zmm1, %%zmm0, %%zmm2\n\t"
        "vfmadd231ps %%zmm1, %%zmm0, %%zmm3\n\t"
        "vfmadd231ps %%zmm1, %%zmm0, %%zmm4\n\t"
        "vfmadd231ps %%zmm1, %%zmm0, %%zmm5\n\t"
        "vfmadd231ps %%zmm1, %%zmm0, %%zmm6\n\t"
        "vfmadd231ps %%zmm1, %%zmm0, %%zmm7\n\t"
        "vfmadd231ps %%zmm1, %%zmm0, %%zmm8\n\t"
        "vfmadd231ps %%zmm1, %%zmm0, %%zmm9\n\t"
        "vfmadd231ps %%zmm1, %%zmm0, %%zmm10\n\t"
        "vfmadd231ps %%zmm1, %%zmm0, %%zmm11\n\t"
        "vfmadd231ps %%zmm1, %%zmm0, %%zmm12\n\t"
        "vfmadd231ps %%zmm1, %%zmm0, %%zmm13\n\t"
        "dec %0\n\t"
        "jnz 1b\n\t"
        : "+r"(left)
        : "r"(0x01010101)
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
          "xmm12", "xmm13", "cc");
    return std::uint64_t{12} * 16 * rounds;
}

}  // namespace

extern const Kernels avx512{screen<Dot>,
                            true,
                            bound<Avx512>,
                            canonical_tile<Avx512>,
                            scores<Avx512>,
                            exponentials<Avx512>,
                            add_exponentials<Avx512>,
                            insert,
                            transpose<Avx512>,
                            project<Avx512>,
                            flip<Avx512>,
                            hadamard<Avx512>,
                            {quantise<Avx512, false>, quantise<Avx512, true>},
                            {copy_group<false>, copy_group<true>},
                            burn_bytes,
                            burn_floats};

}  // namespace pycurate::fused_similarity
