#pragma once
// Rows in the order of a band's bits, so that the rows of one key (a bucket) stand together.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/aligned_buffer.h"
#include "kernels/hamming/hamming.h"

namespace pycurate::hamming {

/// The band's bits of a code; word(w): its w-th word.
template <class Word>
std::uint32_t key_of(Band band, const Word& word) noexcept {
    if (band.bits == 0) return 0;
    const unsigned at = band.first / 64, shift = band.first % 64;
    std::uint64_t bits = word(at) >> shift;
    if (shift + band.bits > 64) bits |= word(at + 1) << (64 - shift);
    return static_cast<std::uint32_t>(bits & ((std::uint64_t{1} << band.bits) - 1));
}

/// Called between pieces of work; true stops.
using Stop = std::function<bool()>;

/// Rows by key, and where each key's begin.
struct Buckets {
    AlignedBuffer<std::uint64_t> keyed;  // (n,) key in the high half, row in the low; sorted
    std::vector<std::uint32_t> starts;   // (2^bits + 1,)

    std::uint32_t row(std::size_t position) const noexcept {
        return static_cast<std::uint32_t>(keyed[position]);
    }
};

/// Writes the keys, in [0, 2^bits), of rows `begin` to `end`, in the high halves of items[row], the rows in
/// the low.
using Fill = std::function<void(std::size_t begin, std::size_t end, std::uint64_t* items)>;

/// Rows of equal keys rise. False: stopped.
bool sort_by_key(std::size_t n, unsigned bits, const Fill& fill, std::size_t threads, const Stop& stop,
                 Buckets& out);

/// The rows of one side by the keys of one band, with their codes in that order.
struct BandedRows {
    Buckets buckets;
    AlignedBuffer<std::uint64_t> planes;  // word w of position p at planes[w * n + p]
    std::size_t n = 0;
};

bool order_by_band(Codes codes, std::size_t words, Band band, std::size_t threads, const Stop& stop,
                   BandedRows& out);

}  // namespace pycurate::hamming
