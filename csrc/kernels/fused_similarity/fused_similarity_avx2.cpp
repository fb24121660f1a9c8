// Compiled for AVX2, FMA and F16C. Includes only intrinsics and the family's headers; see common/half.h.
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
    static std::uint64_t not_below(Lanes x, Lanes y) noexcept {
        const int low = _mm256_movemask_ps(_mm256_cmp_ps(x.low, y.low, _CMP_NLT_UQ));
        const int high = _mm256_movemask_ps(_mm256_cmp_ps(x.high, y.high, _CMP_NLT_UQ));
        return static_cast<std::uint64_t>(low) | static_cast<std::uint64_t>(high) << 8;
    }

    static constexpr std::size_t canonical_rows = 2, canonical_columns = 3;

    struct Two {
        Lanes a, b;
    };
    static Two add_column(const Two& sums, const Two& x, const float* column) noexcept {
        const Lanes y = load(column);
        return {multiply_add(x.a, y, sums.a), multiply_add(x.b, y, sums.b)};
    }
    static float fold(Lanes sum) noexcept {
        const __m256 s8 = _mm256_add_ps(sum.low, sum.high);
        const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
        const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
        return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
    }
    static void fold(const Two& sums, float* out) noexcept {
        out[0] = fold(sums.a), out[panel_rows] = fold(sums.b);
    }
    static void canonical_block(const float* rows, const float* columns, std::size_t stride,
                                std::size_t width, float* out) noexcept {
        const Two none{set(0.0f), set(0.0f)};
        Two s0 = none, s1 = none, s2 = none;
        for (std::size_t j = 0; j < width; j += lanes) {
            const float *x = rows + j, *y = columns + j;
            const Two group{load(x), load(x + stride)};
            s0 = add_column(s0, group, y), s1 = add_column(s1, group, y + stride);
            s2 = add_column(s2, group, y + 2 * stride);
        }
        fold(s0, out), fold(s1, out + 1), fold(s2, out + 2);
    }
};

}  // namespace

extern const Kernels avx2{screen<Dot>, true,
                          bound<Avx2>, canonical_tile<Avx2>,
                          transpose,   project<Avx2>,
                          flip,        hadamard,
                          quantise,    {copy_group<false>, copy_group<true>}};

}  // namespace pycurate::fused_similarity
