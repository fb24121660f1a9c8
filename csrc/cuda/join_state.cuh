#pragma once
// What a block of the join's kernel keeps in shared memory, the limits of its rows, and the pairs of a tile
// that may reach them.
#include "cuda/tile_products.cuh"
#include "kernels/fused_similarity/ranked.h"
#include "kernels/fused_similarity/shares.h"

namespace pycurate::cuda {
namespace {

using fused_similarity::Ranked;

// Chunks of a tile that stay in shared memory: those of a for a whole task, those of b one tile ahead.
constexpr std::uint32_t resident_chunks = 2;
constexpr std::uint32_t ring_slots = 3;

// Pairs that a warp scores at a time, two threads each; and those that may wait for it.
constexpr std::uint32_t scored_together = 16, most_waiting = scored_together + 32;
constexpr std::uint32_t warp_tile_rows = tile_rows / warps;

/// A pair of a tile that may matter: row, column and whether its estimate itself reaches the limit, in 7, 7
/// and 1 bits; and the upper bound of its sum.
struct Survivor {
    std::uint32_t place;
    std::int32_t sum;
};
constexpr std::uint32_t near_bit = 1u << 14;
// Of a tile with more, every pair is scored.
constexpr std::uint32_t most_survivors = 4096;

struct Shared {
    alignas(1024) std::int8_t a[resident_chunks][chunk_bytes];
    alignas(1024) std::int8_t b[2][resident_chunks][chunk_bytes];
    union {
        alignas(1024) std::int8_t ring[ring_slots][2][chunk_bytes];
        Survivor survivors[most_survivors];
    };
    alignas(16) std::int32_t share_b[2][tile_rows];  // of the first stage
    std::int32_t limits[most_stages][tile_rows];     // of sums, what a row's share takes deducted
    float score_limits[tile_rows];
    std::int32_t last_shares[tile_rows];                        // of a's rows, of the last stage
    uint2 waiting[warps][most_waiting];                         // positions of pairs that wait to be scored
    std::uint32_t waiting_count[warps];                         // of a warp's waiting pairs
    std::uint32_t queued_count[warps], postponed_count[warps];  // where limits move
    std::uint32_t row_begin[warps][warp_tile_rows];             // of a queue in order of rows
    std::uint32_t survivor_count, task, begin;
};

// Limits of a task's rows --------------------------------------------------------------------------------

__device__ void set_limits(const JoinParams& p, Shared& shared, std::uint32_t tile_a, std::uint32_t row,
                           float limit) {
    const std::uint32_t i = tile_a * tile_rows + row;
    shared.score_limits[row] = limit;
    if (p.metric != Metric::cosine || !p.screened) return;
    for (std::uint32_t left = p.plan; left != 0; left &= left - 1u) {
        const std::uint32_t s = __ffs(static_cast<int>(left)) - 1;
        shared.limits[s][row] =
            i < p.a.n ? fused_similarity::least_sum_of(limit, p.extra[s], p.unit[s], most_limit) -
                            p.a.shares[s * p.a.positions + i]
                      : unreachable_limit;
    }
}

/// What the worst of a full list of nearest rows says, or nothing.
__device__ float limit_of_list(const JoinParams& p, std::uint32_t i) {
    const unsigned long long worst = p.lists[static_cast<std::size_t>(i) * p.k + p.k - 1];
    return worst == Ranked::none ? -INFINITY : Ranked::score(worst);
}

/// For each sum of this thread `visit(row, column, sum)`, in an order that keeps what is loaded for it short.
template <class Row, class Visit>
__device__ void for_sums(const Sums& sums, const Row& per_row, const std::int32_t* share_b,
                         const Visit& visit) {
#pragma unroll
    for (std::uint32_t c = 0; c < col_parts; ++c) {
        const int2 share = *reinterpret_cast<const int2*>(share_b + col_of(c, 0));
#pragma unroll
        for (std::uint32_t r = 0; r < row_parts; ++r)
#pragma unroll
            for (std::uint32_t half = 0; half < 2; ++half) {
                visit(r, half, c, 0u, sums.of[r][c][half * 2], share.x, per_row[r][half]);
                visit(r, half, c, 1u, sums.of[r][c][half * 2 + 1], share.y, per_row[r][half]);
            }
        // Without this the compiler loads all shares first, and spills what the tile's loop keeps.
        if (c % 4 == 3) asm volatile("" ::: "memory");
    }
}

/// An upper bound of the score of a pair, from its sum and both shares.
__device__ float upper_bound(const JoinParams& p, std::uint32_t s, std::uint32_t i, std::uint32_t j,
                             std::int32_t sum) {
    const float most =
        static_cast<float>(p.unit[s]) * static_cast<float>(sum) + static_cast<float>(p.extra[s]);
    return p.a.factors[i] * p.b.factors[j] * most + p.a.biases[i] + p.b.biases[j];
}

/// Of the rows that a thread has sums of: limits of them for cosine, else shares.
struct RowValues {
    std::int32_t of[row_parts][2];
};
template <bool cosine>
__device__ RowValues row_values(const JoinParams& p, const Shared& shared, std::uint32_t s,
                                std::uint32_t tile_a) {
    RowValues values;
#pragma unroll
    for (std::uint32_t r = 0; r < row_parts; ++r)
#pragma unroll
        for (std::uint32_t half = 0; half < 2; ++half)
            values.of[r][half] = cosine
                                     ? shared.limits[s][row_of(r, half)]
                                     : p.a.shares[s * p.a.positions + tile_a * tile_rows + row_of(r, half)];
    return values;
}

/// Whether a pair of this thread may reach its limit after stage s.
template <bool cosine>
__device__ bool reaches(const JoinParams& p, const Shared& shared, const Sums& sums, std::uint32_t s,
                        std::uint32_t tile_a, std::uint32_t tile_b, const std::int32_t* share_b) {
    const RowValues values = row_values<cosine>(p, shared, s, tile_a);
    if constexpr (cosine) {
        std::int32_t below = -1;  // the sign of all sums less their limits
        for_sums(sums, values.of, share_b,
                 [&](auto, auto, auto, auto, std::int32_t sum, std::int32_t share, std::int32_t limit) {
                     below &= sum + share - limit;
                 });
        return below >= 0;
    }
    bool any = false;
    for_sums(
        sums, values.of, share_b,
        [&](auto r, auto half, auto c, auto k, std::int32_t sum, std::int32_t share, std::int32_t share_a) {
            const std::uint32_t row = row_of(r, half);
            const float upper = upper_bound(p, s, tile_a * tile_rows + row, tile_b * tile_rows + col_of(c, k),
                                            sum + share + share_a);
            any = any || !(upper < shared.score_limits[row]);
        });
    return any;
}

/// Lists the pairs of all threads that may reach their limits after the last stage, as far as there is room;
/// they are counted first.
template <bool cosine, bool moving>
__device__ void list_survivors(const JoinParams& p, Shared& shared, const Sums& sums, std::uint32_t s,
                               std::uint32_t tile_a, std::uint32_t tile_b, const std::int32_t* share_b) {
    const RowValues values = row_values<cosine>(p, shared, s, tile_a);
    const auto matters = [&](auto r, auto half, auto c, auto k, std::int32_t sum, std::int32_t share,
                             std::int32_t value) {
        if constexpr (cosine) return sum + share >= value;
        const std::uint32_t row = row_of(r, half);
        return !(upper_bound(p, s, tile_a * tile_rows + row, tile_b * tile_rows + col_of(c, k),
                             sum + share + value) < shared.score_limits[row]);
    };
    std::uint32_t count = 0;
    for_sums(sums, values.of, share_b, [&](auto... of) { count += matters(of...) ? 1u : 0u; });
    std::uint32_t at = count > 0 ? atomicAdd(&shared.survivor_count, count) : 0;
    __syncthreads();
    if (count == 0 || shared.survivor_count > most_survivors) return;
    for_sums(
        sums, values.of, share_b,
        [&](auto r, auto half, auto c, auto k, std::int32_t sum, std::int32_t share, std::int32_t value) {
            if (!matters(r, half, c, k, sum, share, value)) return;
            const std::uint32_t row = row_of(r, half);
            // The estimate itself, without what the bound adds, reaches the limit.
            const bool near = !moving || !cosine || sum >= value + shared.last_shares[row];
            shared.survivors[at++] = {row * tile_rows + col_of(c, k) | (near ? near_bit : 0u), sum + share};
        });
}

/// Counts what a stage leaves of a sampled tile.
__device__ void note_sample(const JoinParams& p, std::uint32_t stage, bool alive) {
    if (threadIdx.x != 0 || p.sample == 0) return;
    atomicAdd(&p.counters->screened[stage], 1ull);
    if (alive) atomicAdd(&p.counters->alive[stage], 1ull);
}

}  // namespace
}  // namespace pycurate::cuda
