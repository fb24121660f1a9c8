#pragma once
// How the values of a block of rows are walked on a device, so that sums over them keep the order that
// kernels/graph has. Host arithmetic, tested without a device.
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "common/host_device.h"

namespace pycurate::cuda {

/// Values, row after row, that a group of threads makes before they are added up.
constexpr std::uint32_t tile_values = 2048;
/// Columns of a dense state at most, so that the values of a block of 1,024 rows are counted in 32 bits.
constexpr std::uint32_t most_columns = 1u << 21;

/// Sums of the values whose places are congruent modulo `period`: the width of a row for sums by column, or
/// the lanes of a change. A tile has so many of them.
PYCURATE_HOST_DEVICE inline std::uint32_t chains_of(std::uint32_t count, std::uint32_t period) {
    return count < period ? count : period;
}
/// Which sum a tile's chain continues. `begin`: the place of its first value among those of the block.
PYCURATE_HOST_DEVICE inline std::uint32_t sum_of_chain(std::uint32_t begin, std::uint32_t chain,
                                                       std::uint32_t period) {
    return (begin + chain) % period;
}
/// The chain that a thread takes first: one warp further for each tile, as short periods are work for one.
PYCURATE_HOST_DEVICE inline std::uint32_t first_chain(std::uint32_t thread, std::uint32_t tile,
                                                      std::uint32_t threads) {
    return (thread + 32 * tile) % threads;
}

/// Rows of more edges are summed by a group of threads each, which reads many edges at a time: one thread
/// would wait for a few after another. Not where they are more than a share of all, which keep the device
/// busy as they are.
constexpr std::uint64_t heavy_edges = 512;
constexpr std::size_t heavy_share = 64;

/// Of rows that begin at `indptr` those that are heavy, rising; none where they are too many.
inline std::vector<std::uint32_t> heavy_rows(const std::uint64_t* indptr, std::size_t rows) {
    std::vector<std::uint32_t> found;
    if (rows > std::numeric_limits<std::uint32_t>::max()) return found;
    for (std::size_t i = 0; i < rows; ++i)
        if (indptr[i + 1] - indptr[i] > heavy_edges) found.push_back(static_cast<std::uint32_t>(i));
    if (found.size() > rows / heavy_share + 1) found.clear();
    return found;
}

/// Where a row stands in a rising list that has it.
PYCURATE_HOST_DEVICE inline std::uint32_t place_among(const std::uint32_t* rows, std::uint32_t count,
                                                      std::uint32_t row) {
    std::uint32_t low = 0, high = count;
    while (high - low > 1) {
        const std::uint32_t middle = (low + high) / 2;
        if (rows[middle] <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/// Labels of one pass over a row of which a table can't hold all: those with these low bits.
PYCURATE_HOST_DEVICE inline bool in_pass(std::uint32_t label, std::uint32_t pass, std::uint32_t passes) {
    return (label & (passes - 1)) == pass;
}

}  // namespace pycurate::cuda
