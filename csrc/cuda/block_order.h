#pragma once
// How the values of a block of rows are walked on a device, so that sums over them keep the order that
// kernels/graph has. Host arithmetic, tested without a device.
#include <cstddef>
#include <cstdint>

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

/// Labels of one pass over a row of which a table can't hold all: those with these low bits.
PYCURATE_HOST_DEVICE inline bool in_pass(std::uint32_t label, std::uint32_t pass, std::uint32_t passes) {
    return (label & (passes - 1)) == pass;
}

}  // namespace pycurate::cuda
