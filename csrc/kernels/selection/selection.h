#pragma once
// Facility location: choose candidates so that the sum over rows of the similarity to the most similar chosen
// one is large. Candidates are columns of a sparse matrix or rows of a dense one.
//
// The gain of a candidate is a sum of non-negative float64 terms in one fixed order. Each term falls, or
// stays, as rows get covered better, and rounded additions are monotone, so that a gain computed earlier
// bounds the gain now to the last bit: the lazy greedy algorithm (Minoux 1978) picks what the plain one
// picks.
#include <cstddef>
#include <cstdint>
#include <functional>

#include "kernels/selection/dense.h"

namespace pycurate::selection {

/// Called by the calling thread about every 100 ms with the share of the picks that are made; true stops.
using Poll = std::function<bool(double done)>;

inline constexpr std::uint32_t none = 0xffffffffu;

/// What chosen candidates have done for the rows so far. No similarity is below 0.
struct Rows {
    float* covered;                 // (n,) similarity to the representative, 0 without one
    std::uint32_t* representative;  // (n,) the name of the candidate, `none`
    const double* weights;          // (n,) at least 0; null: 1
    std::size_t n;
};

/// Candidate c is similar to rows[starts[c]] ... rows[ends[c] - 1], rising.
struct SparseCandidates {
    const std::uint64_t *starts, *ends;
    const std::uint32_t* rows;
    const float* similarities;
    std::size_t count;
};

/// Candidate c has similarity data[c * n + i] with row i of n.
struct DenseCandidates {
    const float* data;
    std::size_t count;
};

/// Part of a graph as edges row -> column. Row i (of `first_row` + i) has the edges ends[i - 1] to ends[i] -
/// 1, the first from 0; a column `none` is left out. selves[i]: the column that is row i itself, or `none`;
/// it gets self_similarities[i], and an edge to it is ignored.
struct Edges {
    const std::uint64_t* ends;
    const std::uint32_t* columns;
    const float* similarities;
    const std::uint32_t* selves;
    const float* self_similarities;
    std::size_t rows;
    std::uint32_t first_row;
};

/// counts (columns,) grow by the entries of each column.
void count_entries(const Edges& edges, std::uint64_t* counts) noexcept;
/// Puts entries at ends[column], which grows. Of equal edges the more similar one stays. Rows must come in
/// rising order; starts (columns + 1,), ends: as SparseCandidates have them. False: a column would get more
/// than were counted; the others are left out.
bool place_entries(const Edges& edges, const std::uint64_t* starts, std::uint64_t* ends, std::uint32_t* rows,
                   float* similarities) noexcept;
/// gains (columns,) grow by what the entries of each column gain, rows in order: the same bits as a column's
/// gain.
void add_gains(const Edges& edges, const Rows& rows, double* gains) noexcept;

/// gains (count,) of candidates; those not in `allowed` (null: all are) get -1. False: stopped.
bool gains_of(const SparseCandidates& all, const Rows& rows, const std::uint8_t* allowed, double* gains,
              std::size_t threads, const std::function<bool()>& poll);
/// invalid: set to the lowest candidate with a similarity that is not `Kernels::valid`, `none` if all are.
bool gains_of(const DenseCandidates& all, const Rows& rows, const std::uint8_t* allowed, bool negative,
              double* gains, std::uint32_t& invalid, std::size_t threads, const std::function<bool()>& poll);

struct Picks {
    std::uint32_t* candidates;  // (k,)
    double* gains;              // (k,)
    std::uint64_t evaluations;  // gains computed anew
};

/// The k candidates of the greedy algorithm, each of largest gain then, ties to the lower one; at most as
/// many as have a gain >= 0 in `gains`, which are those of the start and are changed. names (count,): of
/// candidates, null: their numbers. Returns how many were picked; `stopped` is set when `poll` stopped it.
std::size_t pick_greedily(const SparseCandidates& all, const Rows& rows, double* gains,
                          const std::uint32_t* names, std::size_t k, Picks& picks, bool& stopped,
                          const Poll& poll);
std::size_t pick_greedily(const DenseCandidates& all, const Rows& rows, double* gains,
                          const std::uint32_t* names, std::size_t k, Picks& picks, bool& stopped,
                          const Poll& poll);

/// Take these candidates, in order.
void cover(const SparseCandidates& all, const std::uint32_t* chosen, std::size_t count,
           const std::uint32_t* names, const Rows& rows) noexcept;
void cover(const DenseCandidates& all, const std::uint32_t* chosen, std::size_t count,
           const std::uint32_t* names, const Rows& rows) noexcept;

/// counts (n,) grow by one for each of these candidates that is more similar than `covered` (n,).
void count_better(const SparseCandidates& all, const std::uint32_t* chosen, std::size_t count,
                  const float* covered, std::int32_t* counts) noexcept;

/// Sum over rows of weight * covered, in order.
double objective(const Rows& rows) noexcept;

}  // namespace pycurate::selection
