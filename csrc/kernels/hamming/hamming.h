#pragma once
// Pairs of binary codes that differ in few bits. Codes are whole 64-bit words; word w of row i stands at
// codes[i * words + w]. Exact for every radius: no pair within it is missed.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/hamming/tiles.h"

namespace pycurate::hamming {

/// Called by the calling thread about every 100 ms with the share of the work that is done; true stops.
using Poll = std::function<bool(double done)>;

/// (n, words) codes in C order; n < 2^31.
struct Codes {
    const std::uint64_t* data;
    std::size_t n;
};

/// Some bits of the codes, and how many of them may differ between two codes that this band brings together.
struct Band {
    unsigned first, bits, radius;  // bits first to first + bits - 1, bit 0 the lowest of word 0
};

/// Bands such that two codes within `radius` are within the radius of at least one band on its bits; one band
/// of no bits: brute force. By the pigeonhole principle that holds when the sum of (band radius + 1) is
/// radius + 1. `count`: how many bands, 0 for those that a model of the time takes for fastest (bands.cpp),
/// at most min(radius + 1, bits); `self`: a against itself, b_rows is then a_rows. radius <= 64 * words.
std::vector<Band> plan_bands(std::size_t a_rows, std::size_t b_rows, bool self, std::size_t words,
                             unsigned radius, int count);

struct Pair {
    std::uint32_t row, col, distance;
};

// `b` null: a with itself, pairs of distinct rows. False: stopped by `poll`. bands: of plan_bands.

/// Sorted by (row, col), each once; row < col in a self-join. `too_many` is set, and the join ends, beyond
/// max_pairs.
bool pairs_within(Codes a, const Codes* b, std::size_t words, unsigned radius, const std::vector<Band>& bands,
                  std::size_t max_pairs, std::vector<Pair>& out, bool& too_many, std::size_t threads,
                  const Poll& poll);

/// labels (n,): the lowest row of each row's connected component. Holds no pairs.
bool components_within(Codes a, std::size_t words, unsigned radius, const std::vector<Band>& bands,
                       std::int64_t* labels, std::size_t threads, const Poll& poll);

/// The components at every radius up to `radius` at once. joined, distances (n,): the least radius at which a
/// row is in one component with a lower one, and the lowest row of that component then; -1 and -1 for a row
/// that is the lowest of its component at `radius`. With b, of the pairs of a row of a and one of b: n is the
/// rows of both, those of b after those of a. bands: as of plan_bands, at most as many as each radius bears.
bool linkage_within(Codes a, const Codes* b, std::size_t words, unsigned radius, int bands,
                    std::int64_t* joined, std::int32_t* distances, std::size_t threads, const Poll& poll);

/// Per row of a the lowest rank among the nearest of the rows (of b, if it is given) of lower rank within the
/// radius, and their distance; -1 and -1 where there is none. ranks, b_ranks: of every row, distinct on a
/// side.
bool nearest_earlier(Codes a, const Codes* b, std::size_t words, unsigned radius,
                     const std::vector<Band>& bands, const std::uint32_t* ranks, const std::uint32_t* b_ranks,
                     std::int64_t* best, std::int32_t* distances, std::size_t threads, const Poll& poll);

/// Per row the lowest row with the same code, -1 for the first.
bool find_copies(Codes a, std::size_t words, std::int64_t* copy_of, std::size_t threads, const Poll& poll);

}  // namespace pycurate::hamming
