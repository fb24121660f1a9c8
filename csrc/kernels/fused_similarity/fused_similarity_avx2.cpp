// Compiled for AVX2, FMA and F16C. Includes only intrinsics and the family's headers; see common/half.h.
#include "kernels/fused_similarity/exponentials_body.h"
#include "kernels/fused_similarity/screen_avx2.h"
#include "kernels/fused_similarity/tiles_body.h"

namespace pycurate::fused_similarity {
namespace {

/// Pairs of products as int16, which do not saturate since the group's bytes are halved.
struct Dot {
    static __m256i add(__m256i sums, __m256i row, __m256i columns) noexcept {
        const __m256i pairs = _mm256_maddubs_epi16(row, columns);
        return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
};

struct Avx2 {
    struct Lanes {
        __m256 low, high;
    };
    static Lanes load(const float* x) noexcept { return {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}; }
    static void store(Lanes x, float* out) noexcept {
        _mm256_storeu_ps(out, x.low);
        _mm256_storeu_ps(out + 8, x.high);
    }
    static Lanes set(float x) noexcept { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
    static Lanes from_int32(const std::int32_t* x) noexcept {
        return {_mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x))),
                _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + 8)))};
    }
    static Lanes add(Lanes x, Lanes y) noexcept {
        return {_mm256_add_ps(x.low, y.low), _mm256_add_ps(x.high, y.high)};
    }
    static Lanes multiply(Lanes x, Lanes y) noexcept {
        return {_mm256_mul_ps(x.low, y.low), _mm256_mul_ps(x.high, y.high)};
    }
    static Lanes multiply_add(Lanes x, Lanes y, Lanes sum) noexcept {
        return {_mm256_fmadd_ps(x.low, y.low, sum.low), _mm256_fmadd_ps(x.high, y.high, sum.high)};
    }
    static Lanes subtract(Lanes x, Lanes y) noexcept {
        return {_mm256_sub_ps(x.low, y.low), _mm256_sub_ps(x.high, y.high)};
    }
    static Lanes largest(Lanes x, Lanes y) noexcept {
        return {_mm256_max_ps(x.low, y.low), _mm256_max_ps(x.high, y.high)};
    }
    static Lanes least(Lanes x, Lanes y) noexcept {
        return {_mm256_min_ps(x.low, y.low), _mm256_min_ps(x.high, y.high)};
    }
    static Lanes gather(const float* x, std::size_t stride) noexcept {
        const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        const __m256i places = _mm256_mullo_epi32(lane, _mm256_set1_epi32(static_cast<int>(stride)));
        return {_mm256_i32gather_ps(x, places, 4), _mm256_i32gather_ps(x + 8 * stride, places, 4)};
    }
    static __m256i bytes_of(__m256 p, __m256 q, __m256 r, __m256 s) noexcept {
        const __m256i byte = _mm256_set1_epi32(0xff);
        const auto bits = [](__m256 x) { return _mm256_castps_si256(x); };
        const __m256i low = _mm256_or_si256(_mm256_and_si256(bits(p), byte),
                                            _mm256_slli_epi32(_mm256_and_si256(bits(q), byte), 8));
        const __m256i high = _mm256_or_si256(_mm256_slli_epi32(_mm256_and_si256(bits(r), byte), 16),
                                             _mm256_slli_epi32(bits(s), 24));
        return _mm256_or_si256(low, high);
    }
    /// The lowest byte of each, the four of a lane together.
    static void store_bytes(Lanes p, Lanes q, Lanes r, Lanes s, std::int8_t* out) noexcept {
        auto* to = reinterpret_cast<__m256i*>(out);
        _mm256_storeu_si256(to, bytes_of(p.low, q.low, r.low, s.low));
        _mm256_storeu_si256(to + 1, bytes_of(p.high, q.high, r.high, s.high));
    }
    static std::uint64_t not_below(Lanes x, Lanes y) noexcept {
        const int low = _mm256_movemask_ps(_mm256_cmp_ps(x.low, y.low, _CMP_NLT_UQ));
        const int high = _mm256_movemask_ps(_mm256_cmp_ps(x.high, y.high, _CMP_NLT_UQ));
        return static_cast<std::uint64_t>(low) | static_cast<std::uint64_t>(high) << 8;
    }

    static constexpr std::size_t canonical_rows = 2, canonical_columns = 3;

    struct Doubles {
        __m256d low, high;
    };
    static Doubles load_doubles(const double* x) noexcept {
        return {_mm256_loadu_pd(x), _mm256_loadu_pd(x + 4)};
    }
    static Doubles widen(const float* x) noexcept {
        return {_mm256_cvtps_pd(_mm_loadu_ps(x)), _mm256_cvtps_pd(_mm_loadu_ps(x + 4))};
    }
    static Doubles set_double(double x) noexcept { return {_mm256_set1_pd(x), _mm256_set1_pd(x)}; }
    static void store(Doubles x, double* out) noexcept {
        _mm256_storeu_pd(out, x.low);
        _mm256_storeu_pd(out + 4, x.high);
    }
    static void store_narrow(Doubles x, float* out) noexcept {
        _mm_storeu_ps(out, _mm256_cvtpd_ps(x.low));
        _mm_storeu_ps(out + 4, _mm256_cvtpd_ps(x.high));
    }
    static Doubles add(Doubles x, Doubles y) noexcept {
        return {_mm256_add_pd(x.low, y.low), _mm256_add_pd(x.high, y.high)};
    }
    static Doubles subtract(Doubles x, Doubles y) noexcept {
        return {_mm256_sub_pd(x.low, y.low), _mm256_sub_pd(x.high, y.high)};
    }
    static Doubles multiply(Doubles x, Doubles y) noexcept {
        return {_mm256_mul_pd(x.low, y.low), _mm256_mul_pd(x.high, y.high)};
    }
    static Doubles divide(Doubles x, Doubles y) noexcept {
        return {_mm256_div_pd(x.low, y.low), _mm256_div_pd(x.high, y.high)};
    }
    static Doubles least(Doubles x, Doubles y) noexcept {
        return {_mm256_min_pd(x.low, y.low), _mm256_min_pd(x.high, y.high)};
    }
    static Doubles most(Doubles x, Doubles y) noexcept {
        return {_mm256_max_pd(x.low, y.low), _mm256_max_pd(x.high, y.high)};
    }
    static Doubles multiply_add(Doubles x, Doubles y, Doubles sum) noexcept {
        return {_mm256_fmadd_pd(x.low, y.low, sum.low), _mm256_fmadd_pd(x.high, y.high, sum.high)};
    }
    static Doubles square_root(Doubles x) noexcept { return {_mm256_sqrt_pd(x.low), _mm256_sqrt_pd(x.high)}; }
    static Doubles nearest(Doubles x) noexcept {
        constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        return {_mm256_round_pd(x.low, mode), _mm256_round_pd(x.high, mode)};
    }
    static Doubles where_finite(Doubles x, Doubles yes, Doubles no) noexcept {
        const auto choose = [](__m256d value, __m256d y, __m256d n) noexcept {
            const __m256d zero = _mm256_sub_pd(value, value);
            return _mm256_blendv_pd(n, y, _mm256_cmp_pd(zero, _mm256_setzero_pd(), _CMP_EQ_OQ));
        };
        return {choose(x.low, yes.low, no.low), choose(x.high, yes.high, no.high)};
    }
    static Doubles power(Doubles x) noexcept {
        // The last bits of 1.5 * 2^52 + integer are that integer.
        const Doubles biased = add(x, set_double(0x1.8p52 + 1023.0));
        return {_mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(biased.low), 52)),
                _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(biased.high), 52))};
    }
    static bool above(Doubles x, Doubles y) noexcept {
        const __m256d low = _mm256_cmp_pd(x.low, y.low, _CMP_GT_OQ),
                      high = _mm256_cmp_pd(x.high, y.high, _CMP_GT_OQ);
        return _mm256_movemask_pd(_mm256_or_pd(low, high)) != 0;
    }
    static bool differ(const float* x, const float* y) noexcept {
        return _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x), _mm256_loadu_ps(y), _CMP_NEQ_UQ)) != 0;
    }
    static Doubles fold8(const Doubles* x) noexcept {
        const auto half = [](Doubles y) noexcept { return _mm256_add_pd(y.low, y.high); };
        const auto quarters = [](__m256d p, __m256d q) noexcept {
            return _mm256_add_pd(_mm256_permute2f128_pd(p, q, 0x20), _mm256_permute2f128_pd(p, q, 0x31));
        };
        const auto four = [&](const Doubles* y) noexcept {
            const __m256d even = quarters(half(y[0]), half(y[2])), odd = quarters(half(y[1]), half(y[3]));
            return _mm256_add_pd(_mm256_unpacklo_pd(even, odd), _mm256_unpackhi_pd(even, odd));
        };
        return {four(x), four(x + 4)};
    }

    /// Sums [2][3][16] folded +8, +4, +2, +1 side by side.
    static void fold(const float* sums, float* out) noexcept {
        // Column c of both rows, four lanes each.
        const auto column = [sums](std::size_t c) noexcept {
            const Lanes p = load(sums + c * lanes), q = load(sums + (canonical_columns + c) * lanes);
            const __m256 p8 = _mm256_add_ps(p.low, p.high), q8 = _mm256_add_ps(q.low, q.high);
            return _mm256_add_ps(_mm256_permute2f128_ps(p8, q8, 0x20), _mm256_permute2f128_ps(p8, q8, 0x31));
        };
        const auto fold_to_2 = [](__m256 p, __m256 q) noexcept {
            return _mm256_add_ps(_mm256_shuffle_ps(p, q, 0x44), _mm256_shuffle_ps(p, q, 0xee));
        };
        const __m256 third = column(2), p = fold_to_2(column(0), column(1)), q = fold_to_2(third, third);
        const __m256 folded = _mm256_add_ps(_mm256_shuffle_ps(p, q, 0x88), _mm256_shuffle_ps(p, q, 0xdd));
        const auto store3 = [](__m128 x, float* to) noexcept {
            _mm_storel_pi(reinterpret_cast<__m64*>(to), x);
            _mm_store_ss(to + 2, _mm_movehl_ps(x, x));
        };
        store3(_mm256_castps256_ps128(folded), out);
        store3(_mm256_extractf128_ps(folded, 1), out + panel_rows);
    }
    /// Sums are variables with names, see screen_avx512.h.
    static void canonical_block(const float* rows, const float* columns, std::size_t stride,
                                std::size_t width, float* out) noexcept {
        __m256 p0 = _mm256_setzero_ps(), p0h = _mm256_setzero_ps();
        __m256 q0 = _mm256_setzero_ps(), q0h = _mm256_setzero_ps();
        __m256 p1 = _mm256_setzero_ps(), p1h = _mm256_setzero_ps();
        __m256 q1 = _mm256_setzero_ps(), q1h = _mm256_setzero_ps();
        __m256 p2 = _mm256_setzero_ps(), p2h = _mm256_setzero_ps();
        __m256 q2 = _mm256_setzero_ps(), q2h = _mm256_setzero_ps();
        for (std::size_t j = 0; j < width; j += lanes) {
            const float *x = rows + j, *y = columns + j;
            const Lanes p = load(x), q = load(x + stride);
            const Lanes y0 = load(y);
            p0 = _mm256_fmadd_ps(p.low, y0.low, p0), p0h = _mm256_fmadd_ps(p.high, y0.high, p0h),
            q0 = _mm256_fmadd_ps(q.low, y0.low, q0), q0h = _mm256_fmadd_ps(q.high, y0.high, q0h);
            const Lanes y1 = load(y + stride);
            p1 = _mm256_fmadd_ps(p.low, y1.low, p1), p1h = _mm256_fmadd_ps(p.high, y1.high, p1h),
            q1 = _mm256_fmadd_ps(q.low, y1.low, q1), q1h = _mm256_fmadd_ps(q.high, y1.high, q1h);
            const Lanes y2 = load(y + 2 * stride);
            p2 = _mm256_fmadd_ps(p.low, y2.low, p2), p2h = _mm256_fmadd_ps(p.high, y2.high, p2h),
            q2 = _mm256_fmadd_ps(q.low, y2.low, q2), q2h = _mm256_fmadd_ps(q.high, y2.high, q2h);
        }
        // Through memory: sums that live beyond the loop make GCC 12 store them in it.
        alignas(32) float sums[canonical_rows][canonical_columns][lanes];
        store({p0, p0h}, sums[0][0]), store({q0, q0h}, sums[1][0]);
        store({p1, p1h}, sums[0][1]), store({q1, q1h}, sums[1][1]);
        store({p2, p2h}, sums[0][2]), store({q2, q2h}, sums[1][2]);
        fold(sums[0][0], out);
    }
};

/// Twelve independent sums that registers alone feed, in assembly so that nothing is merged, moved or stored:
/// what the machine can do at most.
std::uint64_t burn_bytes(std::size_t rounds) noexcept {
    std::size_t left = rounds;
    asm volatile(
        "vmovd %1, %%xmm0\n\t"
        "vpbroadcastd %%xmm0, %%ymm1\n\t"
        "vpbroadcastd %%xmm0, %%ymm2\n\t"
        "vpbroadcastd %%xmm0, %%ymm3\n\t"
        "vpbroadcastd %%xmm0, %%ymm4\n\t"
        "vpbroadcastd %%xmm0, %%ymm5\n\t"
        "vpbroadcastd %%xmm0, %%ymm6\n\t"
        "vpbroadcastd %%xmm0, %%ymm7\n\t"
        "vpbroadcastd %%xmm0, %%ymm8\n\t"
        "vpbroadcastd %%xmm0, %%ymm9\n\t"
        "vpbroadcastd %%xmm0, %%ymm10\n\t"
        "vpbroadcastd %%xmm0, %%ymm11\n\t"
        "vpbroadcastd %%xmm0, %%ymm12\n\t"
        "vpbroadcastd %%xmm0, %%ymm13\n\t"
        "vpbroadcastd %%xmm0, %%ymm14\n\t"
        "vpbroadcastd %%xmm0, %%ymm15\n\t"
        "vpbroadcastd %%xmm0, %%ymm0\n\t"
        "1:\n\t"
        "vpmaddubsw %%ymm1, %%ymm0, %%ymm14\n\t"
        "vpmaddwd %%ymm15, %%ymm14, %%ymm14\n\t"
        "vpaddd %%ymm14, %%ymm2, %%ymm2\n\t"
        "vpmaddubsw %%ymm1, %%ymm0, %%ymm12\n\t"
        "vpmaddwd %%ymm15, %%ymm12, %%ymm12\n\t"
        "vpaddd %%ymm12, %%ymm3, %%ymm3\n\t"
        "vpmaddubsw %%ymm1, %%ymm0, %%ymm13\n\t"
        "vpmaddwd %%ymm15, %%ymm13, %%ymm13\n\t"
        "vpaddd %%ymm13, %%ymm4, %%ymm4\n\t"
        "vpmaddubsw %%ymm1, %%ymm0, %%ymm14\n\t"
        "vpmaddwd %%ymm15, %%ymm14, %%ymm14\n\t"
        "vpaddd %%ymm14, %%ymm5, %%ymm5\n\t"
        "vpmaddubsw %%ymm1, %%ymm0, %%ymm12\n\t"
        "vpmaddwd %%ymm15, %%ymm12, %%ymm12\n\t"
        "vpaddd %%ymm12, %%ymm6, %%ymm6\n\t"
        "vpmaddubsw %%ymm1, %%ymm0, %%ymm13\n\t"
        "vpmaddwd %%ymm15, %%ymm13, %%ymm13\n\t"
        "vpaddd %%ymm13, %%ymm7, %%ymm7\n\t"
        "vpmaddubsw %%ymm1, %%ymm0, %%ymm14\n\t"
        "vpmaddwd %%ymm15, %%ymm14, %%ymm14\n\t"
        "vpaddd %%ymm14, %%ymm8, %%ymm8\n\t"
        "vpmaddubsw %%ymm1, %%ymm0, %%ymm12\n\t"
        "vpmaddwd %%ymm15, %%ymm12, %%ymm12\n\t"
        "vpaddd %%ymm12, %%ymm9, %%ymm9\n\t"
        "vpmaddubsw %%ymm1, %%ymm0, %%ymm13\n\t"
        "vpmaddwd %%ymm15, %%ymm13, %%ymm13\n\t"
        "vpaddd %%ymm13, %%ymm10, %%ymm10\n\t"
        "vpmaddubsw %%ymm1, %%ymm0, %%ymm14\n\t"
        "vpmaddwd %%ymm15, %%ymm14, %%ymm14\n\t"
        "vpaddd %%ymm14, %%ymm11, %%ymm11\n\t"
        "vpmaddubsw %%ymm1, %%ymm0, %%ymm12\n\t"
        "vpmaddwd %%ymm15, %%ymm12, %%ymm12\n\t"
        "vpaddd %%ymm12, %%ymm2, %%ymm2\n\t"
        "vpmaddubsw %%ymm1, %%ymm0, %%ymm13\n\t"
        "vpmaddwd %%ymm15, %%ymm13, %%ymm13\n\t"
        "vpaddd %%ymm13, %%ymm3, %%ymm3\n\t"
        "dec %0\n\t"
        "jnz 1b\n\t"
        : "+r"(left)
        : "r"(0x01010101)
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
          "xmm12", "xmm13", "xmm14", "xmm15", "cc");
    return std::uint64_t{12} * 32 * rounds;
}

std::uint64_t burn_floats(std::size_t rounds) noexcept {
    std::size_t left = rounds;
    asm volatile(
        "vmovd %1, %%xmm0\n\t"
        "vpbroadcastd %%xmm0, %%ymm1\n\t"
        "vpbroadcastd %%xmm0, %%ymm2\n\t"
        "vpbroadcastd %%xmm0, %%ymm3\n\t"
        "vpbroadcastd %%xmm0, %%ymm4\n\t"
        "vpbroadcastd %%xmm0, %%ymm5\n\t"
        "vpbroadcastd %%xmm0, %%ymm6\n\t"
        "vpbroadcastd %%xmm0, %%ymm7\n\t"
        "vpbroadcastd %%xmm0, %%ymm8\n\t"
        "vpbroadcastd %%xmm0, %%ymm9\n\t"
        "vpbroadcastd %%xmm0, %%ymm10\n\t"
        "vpbroadcastd %%xmm0, %%ymm11\n\t"
        "vpbroadcastd %%xmm0, %%ymm12\n\t"
        "vpbroadcastd %%xmm0, %%ymm13\n\t"
        "vpbroadcastd %%xmm0, %%ymm0\n\t"
        "1:\n\t"
        "vfmadd231ps %%ymm1, %%ymm0, %%ymm2\n\t"
        "vfmadd231ps %%ymm1, %%ymm0, %%ymm3\n\t"
        "vfmadd231ps %%ymm1, %%ymm0, %%ymm4\n\t"
        "vfmadd231ps %%ymm1, %%ymm0, %%ymm5\n\t"
        "vfmadd231ps %%ymm1, %%ymm0, %%ymm6\n\t"
        "vfmadd231ps %%ymm1, %%ymm0, %%ymm7\n\t"
        "vfmadd231ps %%ymm1, %%ymm0, %%ymm8\n\t"
        "vfmadd231ps %%ymm1, %%ymm0, %%ymm9\n\t"
        "vfmadd231ps %%ymm1, %%ymm0, %%ymm10\n\t"
        "vfmadd231ps %%ymm1, %%ymm0, %%ymm11\n\t"
        "vfmadd231ps %%ymm1, %%ymm0, %%ymm12\n\t"
        "vfmadd231ps %%ymm1, %%ymm0, %%ymm13\n\t"
        "dec %0\n\t"
        "jnz 1b\n\t"
        : "+r"(left)
        : "r"(0x01010101)
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
          "xmm12", "xmm13", "cc");
    return std::uint64_t{12} * 8 * rounds;
}

}  // namespace

extern const Kernels avx2{screen<Dot>,
                          true,
                          bound<Avx2>,
                          canonical_tile<Avx2>,
                          scores<Avx2>,
                          exponentials<Avx2>,
                          add_exponentials<Avx2>,
                          insert,
                          transpose<Avx2>,
                          project<Avx2>,
                          flip<Avx2>,
                          hadamard<Avx2>,
                          {quantise<Avx2, false>, quantise<Avx2, true>},
                          {copy_group<false>, copy_group<true>},
                          burn_bytes,
                          burn_floats};

}  // namespace pycurate::fused_similarity
