#pragma once
// Reductions over the similarities of all pairs of rows, none of which is stored: the loop over tiles and
// what is done with a tile's pairs. Results equal brute force on canonical similarities (kernels/rowwise),
// bit for bit.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "common/aligned_buffer.h"
#include "kernels/fused_similarity/tiles.h"
#include "kernels/rowwise/rowwise.h"

namespace pycurate::fused_similarity {

using rowwise::Element, rowwise::Matrix, rowwise::Metric;

/// `exact`: tiles are screened in int8 and what may pass is scored canonically. `float32`: every pair is
/// scored canonically. The same results.
enum class Precision { exact, float32 };

/// Called by the calling thread about every 100 ms with the share of the work that is done; true stops.
using Poll = std::function<bool(double done)>;

/// What the operands of one problem share. A prefix stage screens with the first `stages[s]` coordinates of
/// `projection` (rows orthonormal but for rounding); rows are ordered by the nearest of `centroids`. Decides
/// speed, never a result.
class Screening {
  public:
    /// projection: (p, d), centroids: (c, cluster_coordinates <= p), both float32 in C order. stages: rising
    /// powers of two, at least 16, at most p. norms[s]: the typical norm of a unit row's first stages[s]
    /// coordinates, in (0, 1].
    Screening(const float* projection, std::size_t p, std::size_t d, const float* centroids, std::size_t c,
              std::size_t cluster_coordinates, std::vector<std::size_t> stages, std::vector<float> norms);

    std::size_t p, d, centroid_count, cluster_coordinates;
    std::vector<std::size_t> stages;
    std::vector<float> norms;
    /// Columns in chunks of 16, as Kernels::project takes them: [chunk][row][16].
    AlignedBuffer<float> projection, centroids;
    /// Frobenius norm of projection * projection' - 1.
    double defect;
};

/// One stage of screening: quantised rows by position, and the constants of their bound.
///
/// The bound. Of the unit vectors x, y let P x be the stage's coordinates, |x|^2 = |P x|^2 + r^2, and x' =
/// scale * q the quantised P x, P x = x' + e. Then x . y <= P x . P y + r_x r_y by Cauchy-Schwarz, and P x .
/// P y = x' . y' + e_x . P y + x' . e_y <= scale^2 q_x . q_y + |e_x| |P y| + (|P x| + |e_x|) |e_y|. With |P
/// x| <= 1 and 2ab <= a^2 + b^2 each row's share is a number of its own:
///   |e_x| + |e_x|^2 / 2 + r_x^2 / 2,   so that   x . y <= scale^2 q_x . q_y + share_x + share_y + extra.
/// `extra` covers what float32 loses (operand.cpp). Shares are stored in units of the tile's sums, rounded
/// up.
struct Stage {
    std::size_t coordinates, steps;
    std::size_t
        source;  // the stage whose panels it reads: its own, or of the last, of which it is the beginning
    double scale;
    double unit;   // a tile's sum of 1 in cosine: scale^2, twice that for halved groups
    double extra;  // in cosine
    AlignedBuffer<std::int8_t> panels;
    std::vector<std::int32_t> start;  // per position: what a sum starts at, its share as a column included
    std::vector<std::int32_t> group_share;  // per position: share as a row
    std::vector<std::int32_t> panel_share;  // per position: share as a column
};

/// Rows prepared for tiles: ordered, quantised, packed. Reads `x` again to score, so x must outlive it.
/// A *position* is a place in the order, an *index* a place in `rows`, a *row* a row of x.
class Operand {
  public:
    /// rows: `n` rising row numbers of x, null: 0 to n - 1. Each must have a finite squared norm, and for
    /// cosine not 0. `screening` may be null. Nothing when `poll` stopped it.
    static std::unique_ptr<Operand> prepare(Matrix x, std::size_t d, Element element,
                                            const std::int64_t* rows, std::size_t n, Metric metric,
                                            const Screening* screening, Precision precision,
                                            std::size_t threads, const Poll& poll);

    std::size_t n, d;
    Element element;
    Metric metric;
    const Kernels* kernels;              // of the instruction set that was active; a join runs on it
    std::vector<std::int64_t> rows;      // by index
    std::vector<std::uint32_t> order;    // by position: index
    std::vector<double> squares;         // by position: canonical squared norm
    std::vector<float> factors, biases;  // by position, see Kernels::bound; for l2 the bias holds its slack
    std::vector<Stage> stages;  // of rising length, the last has all coordinates; empty: nothing is screened

    std::size_t panels() const noexcept { return (n + panel_rows - 1) / panel_rows; }
    std::size_t positions() const noexcept { return panels() * panel_rows; }
    std::int64_t row_at(std::size_t position) const noexcept { return rows[order[position]]; }
    const void* data_at(std::size_t position) const noexcept {
        return static_cast<const char*>(x_.data) + row_at(position) * x_.row_stride;
    }
    /// Canonical similarities of pairs of positions; NaN: not a finite number.
    void scores(const std::uint32_t* positions, const Operand& other, const std::uint32_t* others,
                std::size_t count, float* out) const noexcept;
    float score(std::size_t position, const Operand& other, std::size_t other_position) const noexcept {
        const auto i = static_cast<std::uint32_t>(position), j = static_cast<std::uint32_t>(other_position);
        float result;
        scores(&i, other, &j, 1, &result);
        return result;
    }
    /// Row at `position` widened to float32, zeros up to a multiple of 16; not int8.
    void widen(std::size_t position, float* out) const noexcept;
    std::size_t bytes() const noexcept;

  private:
    Operand() = default;
    bool quantise(const Screening* screening, std::size_t threads, const std::function<bool()>& poll);
    bool order_by_cluster(const Screening& screening, std::size_t threads, const std::function<bool()>& poll);
    Matrix x_;
};

/// What a join did, for benchmarks and for people who wonder.
struct Work {
    std::uint64_t tiles = 0;              // met by the loop
    std::uint64_t skipped = 0;            // nothing in them could change the result
    std::vector<std::uint64_t> screened;  // computed at each stage
    std::uint64_t operations = 0;         // of bytes, done for that; a multiply-add is two
    std::uint64_t scored_tiles = 0;       // scored canonically as a whole
    std::uint64_t scored_pairs = 0;       // one by one
};

struct Pair {
    std::int64_t row, col;
    float similarity;
};

// `b` null: a with itself, pairs of distinct positions. False: stopped by `poll`. Thresholds are compared
// with the canonical similarity, >=.

/// Sorted by (row, col); row < col in a self-join. `too_many` is set, and the join ends, beyond max_pairs.
bool pairs_above(const Operand& a, const Operand* b, float threshold, std::size_t max_pairs,
                 std::vector<Pair>& out, bool& too_many, std::size_t threads, const Poll& poll, Work& work);

/// Edges (row of a, row of b) of a spanning forest of the pairs' graph. In a cross-join the rows of a and of
/// b are different nodes.
bool forest_above(const Operand& a, const Operand* b, float threshold,
                  std::vector<std::pair<std::int64_t, std::int64_t>>& out, std::size_t threads,
                  const Poll& poll, Work& work);

/// The heaviest spanning forest of the pairs, heaviest edge first, ties to the lower (row, col): at any
/// threshold from `floor` upwards its edges connect what the pairs do. In a cross-join the rows of a and of b
/// are different nodes. Memory is that of the rows, however many pairs there are.
bool spanning_forest_above(const Operand& a, const Operand* b, float floor, std::vector<Pair>& out,
                           std::size_t threads, const Poll& poll, Work& work);
/// Leaves of edges between nodes of n, fewer than 2^32, those of their heaviest spanning forest, in that
/// order.
void heaviest_forest(std::size_t n, std::vector<Pair>& edges);

/// counts_a[i] += weights_b[j] over pairs, by index; counts_b likewise unless b is null. Null weights: 1.
bool count_above(const Operand& a, const Operand* b, float threshold, const std::int64_t* weights_a,
                 const std::int64_t* weights_b, std::int64_t* counts_a, std::int64_t* counts_b,
                 std::size_t threads, const Poll& poll, Work& work);

/// Per index the lowest rank among the most similar of the rows of lower rank with similarity >= floor, -1:
/// none.
bool max_earlier(const Operand& a, const Operand* b, const std::uint32_t* ranks_a,
                 const std::uint32_t* ranks_b, float floor, std::int64_t* best_a, float* similarities_a,
                 std::int64_t* best_b, float* similarities_b, std::size_t threads, const Poll& poll,
                 Work& work);

/// Per index the k nearest, (n, k), ties to the lower row; -1 and NaN beyond the last. Of b unless out_b is
/// null.
bool top_k(const Operand& a, const Operand* b, std::size_t k, std::int64_t* rows_a, float* similarities_a,
           std::int64_t* rows_b, float* similarities_b, std::size_t threads, const Poll& poll, Work& work);

/// log of the sum of exp(scale * similarity) over the rows of b for each index of a, and the reverse.
bool log_sum_exp(const Operand& a, const Operand& b, double scale, double* out_a, double* out_b,
                 std::size_t threads, const Poll& poll, Work& work);

/// out[i][k] = canonical sum of products of a's row i and b's row k: (m, d), (n, d) and (m, n) in C order.
void products(const float* a, std::size_t m, const float* b, std::size_t n, std::size_t d, float* out,
              std::size_t threads);

/// Of (count, d) rows, count <= d, the Gram-Schmidt basis, computed in float64; a row in the span of those
/// before it is replaced by one that is not.
void orthonormalise(const float* rows, std::size_t count, std::size_t d, float* out);

/// Per row 64 bits that follow from its bytes alone: rows with the same bits have the same.
bool hash_rows(Matrix x, std::size_t n, std::size_t d, Element element, std::uint64_t* out,
               std::size_t threads, const Poll& poll);
/// Per row the lowest row with the same bits, -1 for the first.
bool find_copies(Matrix x, std::size_t n, std::size_t d, Element element, std::int64_t* copy_of,
                 std::size_t threads, const Poll& poll);

/// Per node of n the lowest node of its component.
void label_components(std::size_t n, const std::int64_t* from, const std::int64_t* to, std::size_t edges,
                      std::int64_t* labels);

}  // namespace pycurate::fused_similarity
