#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

/// Texts as sets of hashed n-grams (shingles), their MinHash signatures, and pairs of similar sets.
///
/// A token is a word or a character of a text; a shingle is n tokens in a row. Definitions of every hash, in
/// readable form: pycurate/reference/ngram.py.
namespace pycurate::ngram {

/// One entry per kernel; every instruction set fills the same table.
struct Kernels {
    /// out[j] = the upper 32 bits of the least (a[j] * (h >> 32) + b[j]) mod 2^64 over the `count` hashes h;
    /// all ones where there is none. a, b, out: (permutations,), any alignment.
    void (*min_hash)(const std::uint64_t* hashes, std::size_t count, const std::uint64_t* a,
                     const std::uint64_t* b, std::size_t permutations, std::uint32_t* out) noexcept;
};

extern const Kernels scalar, avx2, avx512;

/// The one dispatch point of this family.
const Kernels& active_kernels() noexcept;

/// True when the work should stop.
using Poll = std::function<bool()>;

/// n texts of UTF-8: text i is data[offsets[i]] to data[offsets[i + 1] - 1]. One of the offsets is null.
struct Texts {
    const std::uint8_t* data;
    std::size_t size;  // bytes of data
    const std::int32_t* offsets32;
    const std::int64_t* offsets64;
    std::size_t n;

    std::size_t begin(std::size_t i) const noexcept {
        return static_cast<std::size_t>(offsets32 != nullptr ? offsets32[i] : offsets64[i]);
    }
};

/// How a text becomes shingles.
struct Shape {
    std::size_t lowest, highest;  // tokens of a shingle: every number from lowest to highest; 1 <= lowest
    bool words;                   // else characters
    bool fold;  // ASCII capitals count as small letters; runs of ASCII whitespace as one space, none at the
                // ends
};

/// (a[j], b[j]) of each of `count` permutations.
struct Permutations {
    const std::uint64_t *a, *b;
    std::size_t count;
};

/// n sets of distinct 64-bit hashes, each rising: set i is hashes[starts[i]] to hashes[starts[i + 1] - 1].
struct Sets {
    const std::uint64_t* hashes;
    const std::int64_t* starts;
    std::size_t n;

    const std::uint64_t* at(std::size_t i) const noexcept { return hashes + starts[i]; }
    std::size_t size(std::size_t i) const noexcept {
        return static_cast<std::size_t>(starts[i + 1] - starts[i]);
    }
};

/// Signatures of texts (n, permutations) and their number of shingles, repeats counted (n,): 0 for a text
/// without tokens. False when `poll` stopped it.
bool sign_texts(const Texts& texts, const Shape& shape, const Permutations& permutations,
                std::uint32_t* signatures, std::int64_t* counts, std::size_t threads, const Poll& poll);

/// The sets of texts, a chunk of rows behind the other; starts: (n + 1,). False when `poll` stopped it.
bool shingle_sets(const Texts& texts, const Shape& shape, std::vector<std::vector<std::uint64_t>>& chunks,
                  std::int64_t* starts, std::size_t threads, const Poll& poll);

/// Signatures of the sets with these numbers (g, permutations).
bool sign_sets(const Sets& sets, const std::int64_t* rows, std::size_t g, const Permutations& permutations,
               std::uint32_t* signatures, std::size_t threads, const Poll& poll);

/// copy_of[i]: the first set equal to set i, -1 where that is i itself or the set is empty.
bool find_copies(const Sets& sets, std::int64_t* copy_of, std::size_t threads, const Poll& poll);

/// Elements that x (nx,) and y (ny,), rising, have in common, divided by those of both.
float jaccard(const std::uint64_t* x, std::size_t nx, const std::uint64_t* y, std::size_t ny) noexcept;

/// A signature's first bands * rows values as `bands` keys, each of `rows` values in a row.
struct Bands {
    std::size_t bands, rows;
};

/// The key of band `band` of one signature.
std::uint64_t band_key(const std::uint32_t* signature, std::size_t band, std::size_t rows) noexcept;

struct Pair {
    std::int64_t row, col;
    float similarity;
};

/// Distinct sets whose signatures share a band and whose Jaccard similarity is at or above a threshold.
/// Asking about them takes 8 bytes a band of each.
struct Candidates {
    Sets sets;
    const std::int64_t* rows;  // (g,) the sets that take part, rising
    std::size_t g;
    const std::uint32_t* signatures;  // (g, bands * rows)
    Bands bands;
    float threshold;
};

/// All such pairs, sorted by (row, col), row < col; `too_many` when there are more than `max_pairs`, and
/// `out` is then of no use. False when `poll` stopped it.
bool pairs_above(const Candidates& candidates, std::size_t max_pairs, std::vector<Pair>& out, bool& too_many,
                 std::size_t threads, const Poll& poll);

/// labels[i] (sets.n,): the lowest set that set i is linked to by such pairs. Holds no pair.
bool components_above(const Candidates& candidates, std::int64_t* labels, std::size_t threads,
                      const Poll& poll);

/// Takes candidates in `order` (g,), a permutation of their places, and removes each that such a pair joins
/// with one that is kept. keeper[place]: the place of the most similar kept one, of equally similar ones the
/// first in `order`, -1 where the candidate is kept; similarity[place]: to it, NaN where kept. Holds no pair.
bool greedy(const Candidates& candidates, const std::int64_t* order, std::int64_t* keeper, float* similarity,
            std::size_t threads, const Poll& poll);

}  // namespace pycurate::ngram
