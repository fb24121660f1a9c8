#pragma once
// Nearest rows: pairs wait in queues of their warp until many are scored, row by row, into lists of the best.
#include "cuda/join_questions.cuh"

namespace pycurate::cuda {
namespace {

// Where limits move, pairs wait in queues of their warp, in the device's memory. Those of which the estimate
// reaches the limit are scored when a warp has many; of which only the upper bound does, when limits are
// final: most fall to them.

/// A row of its warp and the upper bound of a sum, in 4 and 28 bits.
__device__ std::uint32_t pack_bound(std::uint32_t row, std::int32_t sum) {
    const std::int32_t most = (1 << 27) - 1;
    const std::int32_t kept = sum > most ? most : sum < -most ? -most : sum;
    return row % warp_tile_rows << 28 | static_cast<std::uint32_t>(kept + (1 << 27));
}
__device__ std::int32_t bound_of(std::uint32_t packed) {
    return static_cast<std::int32_t>(packed & 0x0fffffffu) - (1 << 27);
}
/// Queue q of this warp: 0 and 1 to score soon, unordered and by row; 2 postponed.
__device__ uint2* queue_of(const JoinParams& p, std::uint32_t q) {
    const std::size_t mine = std::size_t{blockIdx.x} * warps + threadIdx.x / 32;
    return p.queues + mine * (2 * queue_room + postponed_room) + q * queue_room;
}
/// Puts a pair of each lane where `there` behind those of a queue.
__device__ void enqueue(uint2* queue, std::uint32_t& count, bool there, uint2 pair) {
    const std::uint32_t those = __ballot_sync(~0u, there), lane = threadIdx.x % 32, before = count;
    if (those == 0) return;
    if (there) queue[before + __popc(those & ((1u << lane) - 1u))] = pair;
    __syncwarp();
    if (lane == 0) count = before + __popc(those);
    __syncwarp();
}

/// The falling list of a row's k best scores in the registers of a warp, entry 32 s + lane in part s.
class BestList {
  public:
    __device__ BestList(const JoinParams& p) : p_(p) {}
    __device__ void load(std::uint32_t i) {
        const unsigned long long* list = p_.lists + static_cast<std::size_t>(i) * p_.k;
#pragma unroll
        for (std::uint32_t s = 0; s < parts; ++s)
            mine_[s] = s * 32 + lane() < p_.k ? list[s * 32 + lane()] : 0;
    }
    __device__ void store(std::uint32_t i) const {
        unsigned long long* list = p_.lists + static_cast<std::size_t>(i) * p_.k;
#pragma unroll
        for (std::uint32_t s = 0; s < parts; ++s)
            if (s * 32 + lane() < p_.k) list[s * 32 + lane()] = mine_[s];
    }
    __device__ unsigned long long worst() const {
        unsigned long long result = 0;
#pragma unroll
        for (std::uint32_t s = 0; s < parts; ++s)
            if ((p_.k - 1) / 32 == s) result = __shfl_sync(~0u, mine_[s], (p_.k - 1) % 32);
        return result;
    }
    __device__ void insert(unsigned long long ranked) {
        std::uint32_t place = 0;
#pragma unroll
        for (std::uint32_t s = 0; s < parts; ++s)
            if (s * 32 < p_.k) place += __popc(__ballot_sync(~0u, mine_[s] > ranked));
#pragma unroll
        for (std::uint32_t s = parts; s-- > 0;) {
            if (s * 32 >= p_.k || place >= s * 32 + 32) continue;
            const unsigned long long from_before = s > 0 ? __shfl_sync(~0u, mine_[s > 0 ? s - 1 : 0], 31) : 0;
            unsigned long long above = __shfl_up_sync(~0u, mine_[s], 1);
            if (lane() == 0) above = from_before;
            const std::uint32_t at = s * 32 + lane();
            mine_[s] = at < place ? mine_[s] : at == place ? ranked : above;
        }
    }

  private:
    static constexpr std::uint32_t parts = most_neighbors / 32;
    __device__ static std::uint32_t lane() { return threadIdx.x % 32; }
    const JoinParams& p_;
    unsigned long long mine_[parts];
};

/// Whether the upper bound of a pair in a queue still reaches the limit of its row.
__device__ bool still_matters(const JoinParams& p, const Shared& shared, const uint2& pair) {
    if (p.metric != Metric::cosine || !p.screened) return true;
    return bound_of(pair.y) >=
           shared.limits[p.stages - 1][threadIdx.x / 32 * warp_tile_rows + (pair.y >> 28)];
}

/// Drops what limits have overtaken from the postponed pairs of this warp.
__device__ void drop_overtaken(const JoinParams& p, Shared& shared) {
    const std::uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const std::uint32_t count = shared.postponed_count[warp];
    uint2* queue = queue_of(p, 2);
    __syncwarp();
    if (lane == 0) shared.postponed_count[warp] = 0;
    __syncwarp();
    for (std::uint32_t begin = 0; begin < count; begin += 32) {
        const uint2 pair = queue[min(begin + lane, count - 1u)];
        enqueue(queue, shared.postponed_count[warp], begin + lane < count && still_matters(p, shared, pair),
                pair);
    }
}

/// Scores what this warp's queue holds, row by row, and puts it into their lists.
__device__ __noinline__ void score_queue(const JoinParams& p, Shared& shared, std::uint32_t tile_a) {
    const std::uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, row0 = warp * warp_tile_rows;
    const std::uint32_t queued = shared.queued_count[warp];
    if (queued == 0) return;
    const uint2* queue = queue_of(p, 0);
    uint2* by_row = queue_of(p, 1);
    std::uint32_t* begins = shared.row_begin[warp];
    if (lane < warp_tile_rows) begins[lane] = 0;
    __syncwarp();
    for (std::uint32_t at = lane; at < queued; at += 32)
        if (still_matters(p, shared, queue[at])) atomicAdd(begins + (queue[at].y >> 28), 1u);
    __syncwarp();
    const std::uint32_t own = lane < warp_tile_rows ? begins[lane] : 0;
    std::uint32_t before = own;
    for (std::uint32_t step = 1; step < warp_tile_rows; step *= 2) {
        const std::uint32_t lower = __shfl_up_sync(~0u, before, step);
        if (lane >= step) before += lower;
    }
    const std::uint32_t count = __shfl_sync(~0u, before, warp_tile_rows - 1);
    __syncwarp();
    if (lane < warp_tile_rows) begins[lane] = before - own;
    __syncwarp();
    for (std::uint32_t at = lane; at < queued; at += 32) {
        const uint2 pair = queue[at];
        if (still_matters(p, shared, pair)) by_row[atomicAdd(begins + (pair.y >> 28), 1u)] = pair;
    }
    __syncwarp();
    count_scored(p, count);
    BestList list(p);
    std::uint32_t current = warp_tile_rows;
    unsigned long long worst = 0;
    const auto change_to = [&](std::uint32_t row) {
        if (current < warp_tile_rows) {
            list.store(tile_a * tile_rows + row0 + current);
            if (lane == 0)
                set_limits(p, shared, tile_a, row0 + current,
                           worst == Ranked::none ? -INFINITY : Ranked::score(worst));
        }
        current = row;
        if (row < warp_tile_rows) {
            list.load(tile_a * tile_rows + row0 + row);
            worst = list.worst();
        }
    };
    for (std::uint32_t begin = 0; begin < count; begin += scored_together) {
        const std::uint32_t at = begin + lane / 2;
        const uint2 pair = by_row[min(at, count - 1u)];
        const std::uint32_t row = pair.y >> 28;
        const float score = score_of(p, tile_a * tile_rows + row0 + row, pair.x);
        const bool scored = at < count && lane % 2 == 0 && score == score;
        const unsigned long long ranked =
            scored ? static_cast<unsigned long long>(Ranked::of(score, p.first_b + p.b.order[pair.x])) : 0;
        for (std::uint32_t left = __ballot_sync(~0u, scored); left != 0; left &= left - 1u) {
            const int from = __ffs(static_cast<int>(left)) - 1;
            const std::uint32_t of = __shfl_sync(~0u, row, from);
            if (of != current) change_to(of);
            const unsigned long long candidate = __shfl_sync(~0u, ranked, from);
            if (candidate <= worst) continue;
            list.insert(candidate);
            worst = list.worst();
        }
    }
    change_to(warp_tile_rows);
    if (lane == 0) shared.queued_count[warp] = 0;
    __syncwarp();
}

}  // namespace
}  // namespace pycurate::cuda
