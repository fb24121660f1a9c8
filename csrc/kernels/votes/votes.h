#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>

/// What the labels of a row's nearest neighbours say of it: votes, votes among random parts of the rows, and
/// how often a row and its two nearest neighbours carry which labels.
namespace pycurate::votes {

using Poll = std::function<bool()>;

/// Neighbours of consecutive nodes, nearest first, ties in a fixed order. A node is a row, or rows of the
/// same bits. A neighbour below 0 is none, and one that is the node itself is left out.
struct Lists {
    const std::int64_t* indices;  // (nodes, width), below `all`
    const float* weights;         // (nodes, width), only those above 0 vote; null: each vote counts 1
    std::size_t nodes, width;
    std::size_t first;  // number of the first of these nodes
};

struct Voters {
    const std::int32_t* labels;  // (all,) -1: has no vote
    std::size_t all;
};

/// The rows that are judged.
struct Asked {
    const std::int64_t* nodes;  // (n,) as an index into the lists
    const std::int32_t* own;    // (n,) its label, -1: none
    std::size_t n;
};

struct Votes {
    std::int32_t* labels;  // (n, top) by falling share, ties to the lower label; -1 beyond the last
    float* shares;         // (n, top) of all votes' weight; 0 beyond the last
    std::size_t top;
    float* own;            // (n,) share of the row's own label; NaN without votes or own label
    float* totals;         // (n,) weight of all votes
    std::int32_t* voters;  // (n,)
};

/// Sums are float64 in the order of the list. False: interrupted.
bool cast_votes(const Lists& lists, const Voters& voters, const Asked& asked, const Votes& out,
                std::size_t threads, const Poll& poll);

/// Rounds first, ..., last - 1 of votes among the nodes of a subset.
struct Rounds {
    const std::uint64_t* members;  // (all,) bit r: in the subset of round r
    std::size_t first, last;       // at most 64
    std::size_t neighbors;         // voters of each row: its nearest in the subset that have a label
    bool
        own_vote;  // the row votes, too, with weight 2 w1 - w2 of its two nearest voters (w1 of a single one)
};

/// For rows with a label, in every round that their node is a member of and has voters: flagged[i] counts
/// those in which another label has more votes (or as many and is lower), judged[i] all of them. Unless null,
/// scores[i * (last - first) + r - first] is the votes of the own label divided by the root of the sum of
/// squares of all labels' votes; NaN in other rounds.
bool round_votes(const Lists& lists, const Voters& voters, const Asked& asked, const Rounds& rounds,
                 std::uint8_t* flagged, std::uint8_t* judged, float* scores, std::size_t threads,
                 const Poll& poll);

/// counts[(a * classes + b) * classes + c] += rows of label a whose two nearest voters have labels b and c.
bool count_triples(const Lists& lists, const Voters& voters, const Asked& asked, std::size_t classes,
                   std::int64_t* counts, std::size_t threads, const Poll& poll);

/// Of three labels that copies of one true class were given independently.
struct Triples {
    const std::int32_t* labels;  // (m, 3)
    const double* counts;        // (m,)
    std::size_t m;
};

/// One step of expectation maximisation: sums[j * classes + k] becomes the expected number of labels j among
/// the triples' whose true class is k, prior_sums[k] the expected triples of class k; returns the
/// log-likelihood of the given model, and -infinity where it gives a triple probability 0. given: (classes,
/// classes) probability of label j (row) of true class k; prior: (classes,). Sums over parts of the triples,
/// which do not depend on threads, merged in order.
double consensus_step(const Triples& triples, std::size_t classes, const double* given, const double* prior,
                      double* sums, double* prior_sums, std::size_t threads);

/// What consensus_step does with some triples; every instruction set fills the same table.
struct Kernels {
    /// Adds count / total * prior[k] * given[a, k] * given[b, k] * given[c, k] to the sums of a, of b and of
    /// c, and to prior_sums, and writes total, the sum over k, of each triple: 8 lanes, lane l taking k = l
    /// (mod 8), folded +4, +2, +1. Rows are `stride` long, a multiple of 8, and 0 beyond the classes. A
    /// triple of total 0 adds nothing.
    void (*add_posteriors)(const std::int32_t* labels, const double* counts, std::size_t m,
                           const double* given, const double* prior, std::size_t stride, double* sums,
                           double* prior_sums, double* totals) noexcept;
};

extern const Kernels scalar, avx2;

/// The one dispatch point of this family.
const Kernels& active_kernels() noexcept;

}  // namespace pycurate::votes
