#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>

namespace pycurate::rowwise {

enum class Element { float32, float16, bfloat16, int8 };
enum class Metric { cosine, inner_product, l2 };

/// Rows of `d` adjacent elements, any alignment; `row_stride` bytes, of either sign, from one row to the
/// next.
struct Matrix {
    const void* data;
    std::ptrdiff_t row_stride;
};

/// Linear heads: out[i, k] = canonical sum of x[i] * weights[k], + bias[k] in float32.
/// weights: (count, d), bias: (count,), out: (n, count), all float32 and C order.
struct Heads {
    const float* weights;
    const float* bias;
    float* out;
    std::size_t count;
};

/// Bits of `PairRequest::flags`. "Not finite" and "zero" are said of the squared norm: it is not finite when
/// an element is NaN or infinite or the sum overflows float32, and zero when every element is, or it
/// underflows.
enum Flag : std::uint8_t { a_not_finite = 1, a_zero = 2, b_not_finite = 4, b_zero = 8 };

/// Canonical sum of x[j] * y[j], the one definition of every similarity: elements widened exactly to float32,
/// then fused multiply-add in 16 float32 lanes that start at +0; lane l takes j = l, l + 16, ... in rising j,
/// the last group filled up with zeros; then lanes l += l + 8, l += l + 4, l += l + 2, l += l + 1. int8 sums
/// exactly in integers.
///
/// dot, aa, bb are the canonical sums of a * b, a * a, b * b as float64, which holds them exactly. A result
/// that is not a finite number is NaN:
///   cosine         dot / sqrt(aa * bb), clamped to [-1, 1]; NaN unless 0 < aa * bb < inf
///   inner_product  dot
///   l2             -(aa + bb - 2 dot), at most 0: larger is nearer
/// in float64, rounded once to float32. Norms are sqrt(aa), sqrt(bb), rounded once to float32.
/// Every NaN that is written is 0x7fc00000. The bits depend on neither instruction set nor threads.
struct PairRequest {
    Matrix a, b;
    std::size_t n, d;
    Element element;
    Metric metric;
    float* similarities;       // (n,)
    float *norms_a, *norms_b;  // (n,), or both null
    std::uint8_t* flags;       // (n,) of Flag bits; null when the norms are
    Heads heads_a, heads_b;    // count 0: none
};

/// Norms, flags (bits a_not_finite and a_zero) and heads of one matrix, by the same definitions.
struct RowRequest {
    Matrix x;
    std::size_t n, d;
    Element element;
    float* norms;         // (n,)
    std::uint8_t* flags;  // (n,)
    Heads heads;
};

/// Conversion among float32, float16 and bfloat16; out is (n, d) in C order. Rounds to nearest, ties to even;
/// a NaN stays a NaN, quiet, and keeps its sign and the upper bits of its payload.
struct ConvertRequest {
    Matrix x;
    std::size_t n, d;
    Element from, to;
    void* out;
};

/// Sums in float64 of the rows of each cluster, elements divided by the length of their row. Of each block of
/// `block_rows` rows those of a cluster are added one by one in rising order, from the first on; blocks are
/// added to 0 in rising order. So the bits depend on the size of blocks, but not on threads.
struct ClusterRequest {
    const float* x;  // (n, d)
    std::size_t n, d;
    const double* lengths;        // (n,), or null: 1
    const std::int64_t* cluster;  // (n,) below `clusters`
    std::size_t clusters, block_rows;
    double* out;  // (clusters, d)
};
bool sum_by_cluster(const ClusterRequest& request, std::size_t threads,
                    const std::function<bool()>& poll = {});

/// Each reads every row once from memory, on up to `threads` threads (0: all); false when `poll` stopped it
/// (see parallel_for). Outputs overlap no input. n == 0 and d == 0 are valid. Works under the default
/// floating-point environment whatever the caller's, so that flush-to-zero set by another library changes
/// nothing.
bool score_pairs(const PairRequest& request, std::size_t threads, const std::function<bool()>& poll = {});
bool measure_rows(const RowRequest& request, std::size_t threads, const std::function<bool()>& poll = {});
bool convert_rows(const ConvertRequest& request, std::size_t threads, const std::function<bool()>& poll = {});

/// What an instruction set must provide, indexed by Element: canonical sums of n rows, and their heads.
struct Kernels {
    void (*pair_sums[4])(Matrix a, Matrix b, std::size_t n, std::size_t d, const Heads& heads_a,
                         const Heads& heads_b, double* ab, double* aa, double* bb) noexcept;
    void (*dots[4])(Matrix a, Matrix b, std::size_t n, std::size_t d, double* ab) noexcept;
    /// Of n pairs of rows that lie anywhere.
    void (*dots_anywhere[4])(const void* const* xs, const void* const* ys, std::size_t n, std::size_t d,
                             double* ab) noexcept;
    void (*row_sums[4])(Matrix x, std::size_t n, std::size_t d, const Heads& heads, double* xx) noexcept;
    /// One row of `d` elements, indexed [from][to]; not int8.
    void (*convert[3][3])(const void* x, std::size_t d, void* out) noexcept;
};

extern const Kernels scalar, avx2, avx512;

/// The one dispatch point of this family.
const Kernels& active_kernels() noexcept;

}  // namespace pycurate::rowwise
