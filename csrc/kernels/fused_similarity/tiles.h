#pragma once
// What an instruction set provides for fused similarity: the arithmetic of one tile and of 16 rows that are
// prepared together. Everything around it, the loop over tiles included, is written once.
#include <cstddef>
#include <cstdint>
#include <span>

#include "common/isa.h"
#include "kernels/rowwise/rowwise.h"

namespace pycurate::fused_similarity {

// A tile is the products of a *group* of 8 rows with a *panel* of 48: 24 vectors of 16 int32 sums, which with
// three vectors of the panel and one of the group fill 28 of the 32 AVX-512 registers.
constexpr std::size_t group_rows = 8, panel_rows = 48, lanes = 16;
constexpr std::size_t panel_groups = panel_rows / group_rows;

/// Quantised rows lie in panels: for each *step* of four coordinates, 48 rows of four bytes. A group that is
/// multiplied with a panel is a copy, eight rows of four bytes a step, of unsigned bytes: q + 128, or
/// (q + 128) >> 1 where products of bytes are added in pairs as saturating int16 (vpmaddubsw): 127 * 127 * 2
/// fits, 255 * 127 * 2 does not.
constexpr std::size_t step_coordinates = 4;
constexpr std::size_t panel_step_bytes = panel_rows * step_coordinates;
constexpr std::size_t group_step_bytes = group_rows * step_coordinates;

/// What the bound of a tile's scores is made of, for the rows of one side (see Operand).
struct Bounds {
    const float* factors;
    const float* biases;
};

/// Canonical squared norms of the rows of one side, and 1 / their square roots; the latter for cosine.
struct Norms {
    const double *squares, *inverses;
};

/// Exponentials are mantissa * 2^exponent with both as float64, and sums of them are in units of 2^exponent
/// of their own, so that none overflows or underflows to a wrong answer: a unit is 2^k of some term of the
/// sum, and rises, all terms being exactly rescaled, when a term is more than 2^exponent_room of it.
constexpr double exponent_room = 500.0;
constexpr double no_exponent = -1e300;  // of a term that is left out, and of a sum without terms
/// ln 2 = ln2 + ln2_rest to 107 bits.
constexpr double ln2 = 0x1.62e42fefa39efp-1, ln2_rest = 0x1.abc9e3b39803fp-56;

/// Sums over coordinates of 16 rows; see Kernels::quantise.
struct Sums16 {
    float quantised[lanes] = {}, squares[lanes] = {}, errors[lanes] = {}, halved_errors[lanes] = {};
};

struct Kernels {
    /// out[r][c] = start[c] + sum of group[r] * panel[c] over the steps; true, and only then written, when
    /// some out[r][c] >= limit[r].
    bool (*screen)(const std::uint8_t* group, const std::int8_t* panel, std::size_t steps,
                   const std::int32_t* start, const std::int32_t* limit, std::int32_t* out) noexcept;
    bool halved_group;  // group bytes are (q + 128) >> 1

    /// Upper bounds of scores from `screen`'s sums:
    ///   upper[r][c] = (row.factors[r] * col.factors[c]) * (unit * (sums[r][c] + slack[r]) + extra)
    ///                 + row.biases[r] + col.biases[c]
    /// and per row a mask of the columns where it reaches row_limit[r], or, unless null, col_limit[c]; or is
    /// NaN. True when a mask is not 0. Unless `col_share` is null, likewise `near`: a mask of the columns
    /// where the estimate itself does, without what the bound adds: sums[r][c] - col_share[c] for the sum.
    bool (*bound)(const std::int32_t* sums, const std::int32_t* slack, const std::int32_t* col_share,
                  Bounds row, Bounds col, float unit, float extra, const float* row_limit,
                  const float* col_limit, float* upper, std::uint64_t* masks, std::uint64_t* near) noexcept;

    /// Canonical sums of 8 rows with 48, out[8][48]. Rows are float32, `stride` apart, filled up with zeros
    /// to a multiple of 16 that `width` says.
    void (*canonical_tile)(const float* group, const float* panel, std::size_t stride, std::size_t width,
                           float* out) noexcept;

    /// Canonical similarities from canonical sums, [8][48]; where those are NaN, NaN or infinite here.
    void (*scores)(const float* dots, Norms rows, Norms cols, rowwise::Metric metric, float* out) noexcept;
    /// exp(scale * score), [8][48]; 0 and no_exponent where a score is not a finite number. True when some
    /// exponent has no room above its row's or its column's.
    bool (*exponentials)(const float* scores, double scale, const double* row_exponents,
                         const double* col_exponents, double* mantissas, double* exponents) noexcept;
    /// Add them to sums of 8 rows and 48 columns in units of 2^row_exponents and 2^col_exponents. Eight at a
    /// time are folded, as eights of a canonical sum are, +4, +2, +1; the eights come one after the other.
    void (*add_exponentials)(const double* mantissas, const double* exponents, const double* row_exponents,
                             const double* col_exponents, double* row_sums, double* col_sums) noexcept;

    /// Puts `found`, greater than best[0], into the `k` numbers of `best`, which rise, in place of the least.
    /// best[k] is not smaller than any.
    void (*insert)(std::uint64_t* best, std::size_t k, std::uint64_t found) noexcept;

    /// out[j][16] = rows[16][stride] transposed, times factors[16].
    void (*transpose)(const float* rows, std::size_t stride, std::size_t d, const float* factors,
                      float* out) noexcept;
    /// out[c][16] = sum over j of x[j][16] * weights[j][c] for 16 columns c; weights (d, 16).
    void (*project)(const float* x, std::size_t d, const float* weights, float* out) noexcept;
    /// x[j][16] *= signs[j].
    void (*flip)(float* x, std::size_t d, const float* signs) noexcept;
    /// Orthonormal Hadamard transform of x[0..d)[16], d a power of two.
    void (*hadamard)(float* x, std::size_t d) noexcept;
    /// q = x / scale, rounded and clipped to [-127, 127], into the panel's bytes of these 16 rows, 192 bytes
    /// a step, filled up with zeros. Adds, per row, q, the squares of x and of the error of q, and, [1], of
    /// the error of the halved group byte's value scale * (2 * byte - 127.5).
    void (*quantise[2])(const float* x, std::size_t d, float scale, std::int8_t* out, Sums16& sums) noexcept;
    /// Group g of a panel as unsigned bytes, [1]: halved.
    void (*copy_group[2])(const std::int8_t* panel, std::size_t g, std::size_t steps,
                          std::uint8_t* out) noexcept;

    /// For benchmarks: as many multiply-adds of bytes, of float32, as registers allow; how many there were.
    std::uint64_t (*burn_bytes)(std::size_t rounds) noexcept;
    std::uint64_t (*burn_floats)(std::size_t rounds) noexcept;
};

extern const Kernels scalar, avx2, avx512;

/// `screen` with the dot products of bytes that some CPUs have besides, for whole group bytes.
struct Screen {
    decltype(Kernels::screen) tile;
    decltype(Kernels::burn_bytes) burn_bytes;
};
extern const Screen avx512vnni, avxvnni;

/// Every table this CPU can run of the instruction set `isa`, the best last: with and without such dot
/// products.
std::span<const Kernels> kernels_of(Isa isa) noexcept;
/// The one dispatch point of this family.
const Kernels& active_kernels() noexcept;

}  // namespace pycurate::fused_similarity
