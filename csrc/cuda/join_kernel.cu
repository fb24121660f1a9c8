// The loop over tiles on a device. A block takes tasks: a tile of a, and a strip of tiles of b. Each tile is
// multiplied in bytes by tensor cores, chunk by chunk, and left as soon as no pair of it can matter; what is
// left is scored canonically and handed to the question.
#include <cuda_runtime.h>

#include "cuda/join_queues.cuh"

namespace pycurate::cuda {
namespace {

/// Each warp takes the survivors of its 16 rows, or every pair of them.
template <bool moving>
__device__ __noinline__ void take_survivors(const JoinParams& p, Shared& shared, std::uint32_t tile_a,
                                            std::uint32_t tile_b, bool every) {
    const std::uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const std::uint32_t j0 = tile_b * tile_rows;
    const std::uint32_t count = every ? warp_tile_rows * tile_rows : shared.survivor_count;
    const std::int32_t unknown = (1 << 27) - 1;  // every pair of a tile: of no known bound
    for (std::uint32_t begin = 0; begin < count; begin += 32) {
        const std::uint32_t at = begin + lane;
        const Survivor survivor = every
                                      ? Survivor{(warp * warp_tile_rows * tile_rows + at) | near_bit, unknown}
                                      : shared.survivors[min(at, count - 1u)];
        const std::uint32_t row = survivor.place / tile_rows % tile_rows, col = survivor.place % tile_rows;
        const std::uint32_t i = tile_a * tile_rows + row, j = j0 + col;
        bool mine = at < count && row / warp_tile_rows == warp && is_pair(p, i, j);
        if constexpr (moving) {
            const uint2 pair = make_uint2(j, pack_bound(row, survivor.sum));
            if (shared.postponed_count[warp] + 32 > postponed_room) drop_overtaken(p, shared);
            if (shared.postponed_count[warp] + 32 <= postponed_room) {
                const bool later = mine && (survivor.place & near_bit) == 0;
                enqueue(queue_of(p, 2), shared.postponed_count[warp], later, pair);
                mine = mine && !later;
            }
            enqueue(queue_of(p, 0), shared.queued_count[warp], mine, pair);
        } else {
            wait_for_score(p, shared, mine, i, j);
        }
    }
}

/// At the end of a task: scores what waits and, of what was postponed, what still reaches its limit.
template <bool moving>
__device__ __noinline__ void score_rest(const JoinParams& p, Shared& shared, std::uint32_t tile_a) {
    const std::uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if constexpr (!moving) {
        score_waiting(p, shared, true);
        return;
    }
    score_queue(p, shared, tile_a);
    const std::uint32_t count = shared.postponed_count[warp];
    const uint2* postponed = queue_of(p, 2);
    __syncwarp();
    for (std::uint32_t begin = 0; begin < count; begin += 32) {
        const uint2 pair = postponed[min(begin + lane, count - 1u)];
        const bool there = begin + lane < count && still_matters(p, shared, pair);
        enqueue(queue_of(p, 0), shared.queued_count[warp], there, pair);
        if (shared.queued_count[warp] >= queue_drain) score_queue(p, shared, tile_a);
    }
    score_queue(p, shared, tile_a);
    if (lane == 0) shared.postponed_count[warp] = 0;
    __syncwarp();
}

// The loop ------------------------------------------------------------------------------------------------

/// The chunk of a row that a tile goes through as its k-th.
__device__ std::uint32_t chunk_at(const JoinParams& p, std::uint32_t k) {
    return k < p.used_prefix ? k : k - p.used_prefix + p.prefix_chunks;
}

__device__ void start_tile(const JoinParams& p, Shared& shared, std::uint32_t tile_b, std::uint32_t buffer,
                           std::uint32_t first_stage) {
    const std::uint32_t chunks = min(p.stage_chunks[p.stages - 1], resident_chunks);
    for (std::uint32_t chunk = 0; chunk < chunks; ++chunk)
        load_chunk<false>(shared.b[buffer][chunk], p.b, p.pitch, tile_b, chunk_at(p, chunk));
    if (threadIdx.x < tile_rows * 4 / segment_bytes)
        copy_far(shared_address(shared.share_b[buffer] + threadIdx.x * 4),
                 p.b.shares + first_stage * p.b.positions + tile_b * tile_rows + threadIdx.x * 4);
}

__device__ void start_ring(const JoinParams& p, Shared& shared, std::uint32_t tile_a, std::uint32_t tile_b,
                           std::uint32_t chunk) {
    if (chunk < p.stage_chunks[p.stages - 1]) {
        std::int8_t (*slot)[chunk_bytes] = shared.ring[chunk % ring_slots];
        load_chunk<true>(slot[0], p.a, p.pitch, tile_a, chunk_at(p, chunk));
        load_chunk<false>(slot[1], p.b, p.pitch, tile_b, chunk_at(p, chunk));
    }
    commit();
}

/// Screens one tile; whether a pair of it may matter, which is then a survivor.
template <bool cosine, bool moving>
__device__ bool screen_tile(const JoinParams& p, Shared& shared, std::uint32_t tile_a, std::uint32_t tile_b,
                            std::uint32_t buffer) {
    Sums sums;
    const auto clear = [&] {
#pragma unroll
        for (std::uint32_t r = 0; r < row_parts; ++r)
#pragma unroll
            for (std::uint32_t c = 0; c < col_parts; ++c)
#pragma unroll
                for (std::uint32_t k = 0; k < 4; ++k) sums.of[r][c][k] = 0;
    };
    clear();
    const std::uint32_t chunks = p.stage_chunks[p.stages - 1];
    const std::uint32_t first_stage = __ffs(static_cast<int>(p.plan)) - 1;
    // Where no tile is expected to end before, the next chunks are fetched while the first are multiplied.
    const bool eager = p.stage_chunks[first_stage] > resident_chunks;
    if (eager) {
        start_ring(p, shared, tile_a, tile_b, resident_chunks);
        start_ring(p, shared, tile_a, tile_b, resident_chunks + 1);
    }
    std::uint32_t stage = first_stage;
    for (std::uint32_t chunk = 0; chunk < chunks; ++chunk) {
        if (chunk < resident_chunks) {
            multiply_chunk(sums, shared.a[chunk], shared.b[buffer][chunk]);
        } else {
            if (chunk == resident_chunks && !eager) {
                start_ring(p, shared, tile_a, tile_b, chunk);
                start_ring(p, shared, tile_a, tile_b, chunk + 1);
            }
            wait_until<1>();
            publish();
            __syncthreads();
            start_ring(p, shared, tile_a, tile_b, chunk + 2);
            multiply_chunk(sums, shared.ring[chunk % ring_slots][0], shared.ring[chunk % ring_slots][1]);
        }
        if (chunk + 1 != p.stage_chunks[stage]) continue;
        const bool last = chunk + 1 == chunks;
        const std::int32_t* shares = stage == first_stage
                                         ? shared.share_b[buffer]
                                         : p.b.shares + stage * p.b.positions + tile_b * tile_rows;
        const bool alive = __syncthreads_or(reaches<cosine>(p, shared, sums, stage, tile_a, tile_b, shares));
        note_sample(p, stage, alive);
        if (last) {
            if (alive && p.sample == 0)
                list_survivors<cosine, moving>(p, shared, sums, stage, tile_a, tile_b, shares);
            return alive;
        }
        if (!alive && p.sample == 0) return false;
        stage = __ffs(static_cast<int>(p.plan >> (stage + 1))) + stage;
        if (chunk + 1 == p.used_prefix) clear();
    }
    return true;
}

template <bool cosine, bool moving>
__global__ void __launch_bounds__(block_threads, 2) join_tiles(const __grid_constant__ JoinParams p) {
    extern __shared__ char memory[];
    Shared& shared =
        *reinterpret_cast<Shared*>((reinterpret_cast<std::uintptr_t>(memory) + 1023) / 1024 * 1024);
    const std::uint32_t first_stage = __ffs(static_cast<int>(p.plan)) - 1;
    constexpr bool square = moving;  // both halves of a self-join
    if (threadIdx.x == 0) shared.survivor_count = 0;
    if (threadIdx.x < warps)
        shared.waiting_count[threadIdx.x] = shared.queued_count[threadIdx.x] =
            shared.postponed_count[threadIdx.x] = 0;
    std::uint32_t buffer = 0;
    for (;;) {
        __syncthreads();
        if (threadIdx.x == 0) {
            shared.task = atomicAdd(&p.counters->next_task, 1u);
            shared.begin = p.sample == 0 && shared.task < p.tasks_end ? p.progress[shared.task] : 0;
        }
        __syncthreads();
        const std::uint32_t task = same_in_warp(shared.task * (p.sample != 0 ? p.sample : 1));
        if (task >= p.tasks_end) return;
        const std::uint32_t strip = same_in_warp(strip_of(p.first_task, p.strips, task));
        const std::uint32_t tile_a = task - p.first_task[strip];
        const std::uint32_t tile_0 = strip * p.tiles_of_strip;
        std::uint32_t end = min(tile_0 + p.tiles_of_strip, p.tiles_b);
        std::uint32_t begin = tile_0 + same_in_warp(shared.begin);
        if (p.self && !square) begin = max(begin, tile_a);
        if (p.sample != 0) {  // a tile anywhere in the strip, but none of rows with themselves
            begin = tile_0 + (task * 2654435761u >> 8) % (end - tile_0);
            if (p.self && (square ? begin == tile_a : begin <= tile_a)) continue;
            end = begin + 1;
        }
        if (begin >= end) continue;
        if (threadIdx.x < tile_rows) {
            const std::uint32_t i = tile_a * tile_rows + threadIdx.x;
            set_limits(p, shared, tile_a, threadIdx.x,
                       square && i < p.a.n ? limit_of_list(p, i) : p.threshold);
            if (p.screened) shared.last_shares[threadIdx.x] = p.a.shares[(p.stages - 1) * p.a.positions + i];
        }
        // The nearest of a row mostly lie beside it where rows have the order of their clusters: from there
        // on.
        const std::uint32_t turn = square && p.self && p.sample == 0 ? tile_a : 0;
        const auto turned = [&](std::uint32_t tile) {
            return tile + turn < end ? tile + turn : tile + turn - end;
        };
        if (p.screened) {
            for (std::uint32_t chunk = 0; chunk < min(p.stage_chunks[p.stages - 1], resident_chunks); ++chunk)
                load_chunk<true>(shared.a[chunk], p.a, p.pitch, tile_a, chunk_at(p, chunk));
            start_tile(p, shared, turned(begin), buffer, first_stage);
            commit();
        }
        bool stopped = false;
        for (std::uint32_t at = begin; at < end; ++at, buffer ^= 1u) {
            const std::uint32_t tile_b = turned(at);
            bool stop = false;
            if (threadIdx.x == 0 && p.sample == 0) {
                const volatile unsigned long long* found = &p.counters->found;
                stop = *found >= p.found_limit;
                if (stop) {
                    p.progress[task] = at - tile_0;
                    atomicAdd(&p.counters->unfinished, 1u);
                }
            }
            wait_until<0>();
            publish();
            stopped = __syncthreads_or(stop);
            if (stopped) break;
            if (p.screened && at + 1 < end) start_tile(p, shared, turned(at + 1), buffer ^ 1u, first_stage);
            commit();
            bool alive = true;
            if (p.question == Question::forest && p.sample == 0 &&
                __syncthreads_or(threadIdx.x == 0 && settled(p, tile_a, tile_b))) {
                if (threadIdx.x == 0) atomicAdd(&p.counters->skipped, 1ull);
                continue;
            }
            if (p.screened) alive = screen_tile<cosine, moving>(p, shared, tile_a, tile_b, buffer);
            if (!alive || p.sample != 0) continue;
            wait_until<0>();
            __syncthreads();
            take_survivors<moving>(p, shared, tile_a, tile_b,
                                   !p.screened || shared.survivor_count > most_survivors);
            // All warps score at a time: else the others would wait for one in nearly every tile.
            const bool full = moving && shared.queued_count[threadIdx.x / 32] >= queue_drain;
            if (__syncthreads_or(full) && moving) score_queue(p, shared, tile_a);
            if (threadIdx.x == 0) shared.survivor_count = 0;
            if (p.question == Question::forest && p.sample == 0) note_whole(p, tile_a, tile_b);
            __syncthreads();
        }
        wait_until<0>();
        if (p.sample == 0) score_rest<moving>(p, shared, tile_a);
        if (threadIdx.x == 0 && p.sample == 0 && !stopped) p.progress[task] = p.tiles_of_strip;
    }
}

constexpr std::size_t shared_bytes = sizeof(Shared) + 1024;
// [cosine][limits move]
constexpr decltype(&join_tiles<true, true>) kernels[2][2] = {
    {join_tiles<false, false>, join_tiles<false, true>}, {join_tiles<true, false>, join_tiles<true, true>}};

}  // namespace

std::uint32_t resident_blocks() {
    int device = 0, count = 0, blocks = 0;
    check(cudaGetDevice(&device), "asking for the current device");
    check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "asking for its size");
    for (const auto& of_metric : kernels)
        for (const auto kernel : of_metric)
            check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       static_cast<int>(shared_bytes)),
                  "asking for shared memory");
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernels[1][1],
                                                        static_cast<int>(block_threads), shared_bytes),
          "asking how many blocks it holds");
    return static_cast<std::uint32_t>(count * std::max(blocks, 1));
}

void launch_join(const JoinParams& params, std::uint32_t blocks) {
    kernels[params.metric == Metric::cosine]
           [params.question == Question::nearest]<<<blocks, block_threads, shared_bytes>>>(params);
    check(cudaGetLastError(), "starting a join");
}

}  // namespace pycurate::cuda
