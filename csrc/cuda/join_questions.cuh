#pragma once
// What a question with one threshold does with the pairs of a tile: they wait until a warp has enough to
// score.
#include "cuda/join_state.cuh"
#include "kernels/rowwise/similarity.h"

namespace pycurate::cuda {
namespace {

// Sets of connected rows ---------------------------------------------------------------------------------

__device__ std::uint32_t root_of(std::uint32_t* parents, std::uint32_t i) {
    volatile std::uint32_t* at = parents;
    for (;;) {
        const std::uint32_t parent = at[i];
        if (parent == i) return i;
        const std::uint32_t above = at[parent];
        if (above != parent) atomicCAS(parents + i, parent, above);  // halve the path, or leave it
        i = above;
    }
}
__device__ bool unite(std::uint32_t* parents, std::uint32_t i, std::uint32_t j) {
    for (;;) {
        std::uint32_t x = root_of(parents, i), y = root_of(parents, j);
        if (x == y) return false;
        if (x < y) {
            const std::uint32_t lower = x;
            x = y, y = lower;
        }
        if (atomicCAS(parents + x, x, y) == x) return true;
    }
}

/// Whether all rows of both tiles are known to be connected: none of their pairs needs to be looked at.
__device__ bool settled(const JoinParams& p, std::uint32_t tile_a, std::uint32_t tile_b) {
    const volatile std::uint8_t* whole = p.whole;
    const std::uint32_t other = p.self ? tile_b : p.tiles_a + tile_b;
    if (!whole[tile_a] || !whole[other]) return false;
    return root_of(p.parents, tile_a * tile_rows) == root_of(p.parents, p.offset_b + tile_b * tile_rows);
}
/// Called by all threads of a block after they have united rows of both tiles.
__device__ void note_whole(const JoinParams& p, std::uint32_t tile_a, std::uint32_t tile_b) {
    const bool left = threadIdx.x < tile_rows;
    const std::uint32_t tile = left ? tile_a : tile_b, n = left ? p.a.n : p.b.n;
    const std::uint32_t begin = left ? 0 : p.offset_b;
    const std::uint32_t i = tile * tile_rows + threadIdx.x % tile_rows;
    const bool same = i >= n || root_of(p.parents, begin + i) == root_of(p.parents, begin + tile * tile_rows);
    const bool whole_a = __syncthreads_and(!left || same), whole_b = __syncthreads_and(left || same);
    if (threadIdx.x == 0) {
        if (whole_a) p.whole[tile_a] = 1;
        if (whole_b) p.whole[p.self ? tile_b : p.tiles_a + tile_b] = 1;
    }
}

// What a question does with canonical scores --------------------------------------------------------------

__device__ void append(const JoinParams& p, bool wanted, Found pair) {
    const std::uint32_t those = __ballot_sync(~0u, wanted), lane = threadIdx.x % 32;
    if (those == 0) return;
    unsigned long long at = 0;
    if (lane == 0) at = atomicAdd(&p.counters->found, static_cast<unsigned long long>(__popc(those)));
    at = __shfl_sync(~0u, at, 0) + static_cast<unsigned long long>(__popc(those & ((1u << lane) - 1u)));
    if (wanted) p.found[at] = pair;
}

/// Both threads of a pair of threads come with their pair (i, j) of positions; `there`: there is one. Whole
/// warps.
__device__ void take(const JoinParams& p, bool there, std::uint32_t i, std::uint32_t j, float score) {
    const bool wanted = there && (threadIdx.x & 1u) == 0 && score >= p.threshold;
    switch (p.question) {
        case Question::pairs: append(p, wanted, {i, j, score}); return;
        case Question::forest:
            append(p, wanted && unite(p.parents, i, p.offset_b + j), {i, j, score});
            return;
        case Question::counts:
            if (wanted) {
                const std::uint32_t x = p.a.order[i], y = p.b.order[j];
                const auto weight = [](const std::int64_t* weights, std::uint32_t at) {
                    return static_cast<unsigned long long>(weights != nullptr ? weights[at] : 1);
                };
                atomicAdd(p.counts_a + x, weight(p.weights_b, y));
                atomicAdd(p.counts_b + y, weight(p.weights_a, x));
            }
            return;
        case Question::earlier:
            if (wanted) {
                const std::uint32_t x = p.a.order[i], y = p.b.order[j];
                const std::uint32_t of_x = p.ranks_a[x], of_y = p.ranks_b[y];
                if (of_x > of_y)
                    atomicMax(p.best_a + x, static_cast<unsigned long long>(Ranked::of(score, of_y)));
                else
                    atomicMax(p.best_b + y, static_cast<unsigned long long>(Ranked::of(score, of_x)));
            }
            return;
        case Question::nearest: return;  // has queues and lists of its own
    }
}

/// Canonical similarity of sixteen pairs of positions at most, two threads each. Whole warps.
__device__ __noinline__ float score_of(const JoinParams& p, std::uint32_t i, std::uint32_t j) {
    const double dot = canonical_dot(p.a.rows.row(p.a.row_numbers[i]), p.b.rows.row(p.b.row_numbers[j]),
                                     p.a.rows.d, p.a.rows.element, p.a.rows.aligned && p.b.rows.aligned, ~0u);
    return rowwise::similarity_of(p.metric, dot, p.a.squares[i], p.b.squares[j]);
}

/// Scores the pairs that wait, sixteen at a time, while there are as many; all of them at the end.
__device__ void score_waiting(const JoinParams& p, Shared& shared, bool all) {
    const std::uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const std::uint32_t count = shared.waiting_count[warp];
    std::uint32_t begin = 0;
    for (; begin + scored_together <= count || (all && begin < count); begin += scored_together) {
        const std::uint32_t at = begin + lane / 2;
        const uint2 pair = shared.waiting[warp][min(at, count - 1u)];
        take(p, at < count, pair.x, pair.y, score_of(p, pair.x, pair.y));
    }
    const uint2 rest = shared.waiting[warp][min(begin + lane, most_waiting - 1u)];
    __syncwarp();
    if (begin > 0 && begin + lane < count) shared.waiting[warp][lane] = rest;
    if (lane == 0) shared.waiting_count[warp] = begin < count ? count - begin : 0;
    __syncwarp();
}

__device__ void count_scored(const JoinParams& p, std::uint32_t pairs) {
    if (threadIdx.x % 32 == 0 && pairs > 0)
        atomicAdd(&p.counters->scored, static_cast<unsigned long long>(pairs));
}

/// Whether a pair of positions is one.
__device__ bool is_pair(const JoinParams& p, std::uint32_t i, std::uint32_t j) {
    return i < p.a.n && j < p.b.n && (!p.self || (p.question == Question::nearest ? i != j : i < j));
}

/// Pairs of this warp's rows, one a lane where `there`, wait to be scored. At most 15 waited before.
__device__ void wait_for_score(const JoinParams& p, Shared& shared, bool there, std::uint32_t i,
                               std::uint32_t j) {
    const std::uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    there = there && is_pair(p, i, j);
    if (p.question == Question::forest)
        there = there && root_of(p.parents, i) != root_of(p.parents, p.offset_b + j);
    const std::uint32_t those = __ballot_sync(~0u, there), more = __popc(those);
    if (more == 0) return;
    const std::uint32_t waiting = shared.waiting_count[warp];
    if (there) shared.waiting[warp][waiting + __popc(those & ((1u << lane) - 1u))] = make_uint2(i, j);
    __syncwarp();
    if (lane == 0) shared.waiting_count[warp] = waiting + more;
    __syncwarp();
    count_scored(p, more);
    if (waiting + more >= scored_together) score_waiting(p, shared, false);
}

}  // namespace
}  // namespace pycurate::cuda
