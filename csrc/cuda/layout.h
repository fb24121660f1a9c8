#pragma once
// How rows lie for the tiles of a device, and which tasks a join has. Host arithmetic, tested without a
// device.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/host_device.h"

namespace pycurate::cuda {

/// A tile is the products of `tile_rows` rows of a with as many of b. Quantised rows lie in *chunks* of
/// coordinates, a byte each; a tile is screened after some of them.
constexpr std::uint32_t tile_rows = 128, chunk_coordinates = 64;
constexpr std::uint32_t chunk_bytes = tile_rows * chunk_coordinates;
constexpr std::uint32_t segment_bytes = 16, row_segments = chunk_coordinates / segment_bytes;

/// Tiles beside each other in b that a task joins with one of a.
constexpr std::uint32_t strip_tiles = 32;

/// Where a segment of a row lies in a chunk in shared memory: moved, so that the same segment of eight rows
/// covers all 32 banks.
PYCURATE_HOST_DEVICE inline std::uint32_t place_in_chunk(std::uint32_t row, std::uint32_t segment) {
    return row * chunk_coordinates + ((segment ^ (row >> 1 & 3u)) * segment_bytes);
}

// Shares that let a pair pass or stop it, and the most a limit of a sum can be, so that sums, two shares and
// a limit stay below 2^31: 127 * 127 * 16,384 + 2 * 2^27 + 2^28 < 2^30.
constexpr std::int32_t passing_share = 1 << 27;
constexpr double most_limit = 0x1p28;
constexpr std::int32_t unreachable_limit = 1 << 30;

/// Stages: rows may begin with up to two chunks of principal coordinates, of which each has a stage; then
/// come all coordinates, rotated, with a stage after some of the chunks and after the last.
constexpr std::uint32_t most_prefix_chunks = 2, most_stages = 12;

/// Chunks of rotated coordinates after which tiles may be screened, rising; the last has all.
inline std::vector<std::uint32_t> stage_chunks(std::uint32_t chunks) {
    std::vector<std::uint32_t> stages;
    for (const std::uint32_t stage : {1u, 2u, 3u, 4u, 6u, 8u, 12u})
        if (stage < chunks) stages.push_back(stage);
    stages.push_back(chunks);
    return stages;
}

/// Which chunks a tile goes through: those of the prefix that a stage of `plan` asks for, then the rotated
/// ones. Bit s of a plan is stage s; the last is always there.
struct Route {
    std::uint32_t prefix = 0;              // chunks of the prefix that are used
    std::vector<std::uint32_t> chunks_at;  // per stage: how many chunks a tile has gone through by then

    Route(std::uint32_t plan, std::uint32_t prefix_chunks, const std::vector<std::uint32_t>& rotated) {
        for (std::uint32_t s = 0; s < prefix_chunks; ++s)
            if ((plan >> s & 1u) != 0) prefix = s + 1;
        for (std::uint32_t s = 0; s < prefix_chunks; ++s) chunks_at.push_back(s + 1);
        for (const std::uint32_t chunks : rotated) chunks_at.push_back(prefix + chunks);
    }
};

/// Of all plans the one with the fewest expected chunks, where a share `alive[s]` of tiles is left by stage s
/// and screening a tile costs `screening_chunks` besides.
inline std::uint32_t cheapest_plan(const std::vector<double>& alive, std::uint32_t prefix_chunks,
                                   const std::vector<std::uint32_t>& rotated, double screening_chunks) {
    const auto last = static_cast<std::uint32_t>(alive.size() - 1);
    std::uint32_t best = 1u << last;
    double least = -1.0;
    for (std::uint32_t set = 0; set < 1u << last; ++set) {
        const std::uint32_t plan = set | 1u << last;
        const Route route(plan, prefix_chunks, rotated);
        double cost = 0, left = 1;
        std::uint32_t done = 0;
        for (std::uint32_t s = 0; s <= last; ++s) {
            if ((plan >> s & 1u) == 0) continue;
            cost += left * (static_cast<double>(route.chunks_at[s] - done) + screening_chunks);
            left = std::min(left, alive[s]);
            done = route.chunks_at[s];
        }
        if (least < 0 || cost < least) least = cost, best = plan;
    }
    return best;
}

/// The tasks of a join, in the order in which they are taken: for each strip of b the tiles of a that meet
/// it, so that tasks which run at a time read the same rows of b.
struct Schedule {
    std::uint32_t tiles_a, tiles_b, tiles_of_strip;
    bool self;
    std::vector<std::uint32_t> first;  // per strip its first task, and the number of all

    Schedule(std::size_t n_a, std::size_t n_b, bool self_, std::uint32_t tiles_of_strip_)
        : tiles_a(static_cast<std::uint32_t>((n_a + tile_rows - 1) / tile_rows)),
          tiles_b(static_cast<std::uint32_t>((n_b + tile_rows - 1) / tile_rows)),
          tiles_of_strip(tiles_of_strip_),
          self(self_),
          first{0} {
        for (std::uint32_t strip = 0; strip * tiles_of_strip < tiles_b; ++strip)
            first.push_back(first.back() +
                            (self ? std::min(tiles_a, (strip + 1) * tiles_of_strip) : tiles_a));
    }
    std::uint32_t tasks() const noexcept { return first.back(); }
    std::uint64_t tiles() const noexcept {
        const auto a = static_cast<std::uint64_t>(tiles_a);
        return self ? a * (a + 1) / 2 : a * tiles_b;
    }
};

/// The strip of a task: the last whose first task is not after it.
PYCURATE_HOST_DEVICE inline std::uint32_t strip_of(const std::uint32_t* first, std::uint32_t strips,
                                                   std::uint32_t task) {
    std::uint32_t low = 0, high = strips;
    while (high - low > 1) {
        const std::uint32_t middle = (low + high) / 2;
        if (first[middle] <= task)
            low = middle;
        else
            high = middle;
    }
    return low;
}

}  // namespace pycurate::cuda
