// The loop over tiles on a device. A block takes tasks: a tile of a, and a strip of tiles of b. Each tile is
// multiplied in bytes by tensor cores, chunk by chunk, and left as soon as no pair of it can matter; what is
// left is scored canonically and handed to the question.
#include <cuda_runtime.h>

#include "cuda/join.h"
#include "kernels/fused_similarity/ranked.h"
#include "kernels/fused_similarity/shares.h"
#include "kernels/rowwise/similarity.h"

namespace pycurate::cuda {
namespace {

using fused_similarity::Ranked;

constexpr std::uint32_t block_threads = 256, warps = block_warps;
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PYCURATE_WARPGROUPS 1
#else
#define PYCURATE_WARPGROUPS 0
#endif
// What a warp has of a tile, in parts of 16 x 8: 16 x 128 where four warps multiply together, else 64 x 32.
constexpr std::uint32_t row_parts = PYCURATE_WARPGROUPS ? 1 : 4, col_parts = PYCURATE_WARPGROUPS ? 16 : 4;
// Chunks of a tile that stay in shared memory: those of a for a whole task, those of b one tile ahead.
constexpr std::uint32_t resident_chunks = 2;
constexpr std::uint32_t ring_slots = 3;

// Pairs that a warp scores at a time, two threads each; and those that may wait for it.
constexpr std::uint32_t scored_together = 16, most_waiting = scored_together + 32;
constexpr std::uint32_t warp_tile_rows = tile_rows / warps;

/// A pair of a tile that may matter: row, column and whether its estimate itself reaches the limit, in 7, 7 and
/// 1 bits; and the upper bound of its sum.
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
    std::int32_t last_shares[tile_rows];  // of a's rows, of the last stage
    uint2 waiting[warps][most_waiting];   // positions of pairs that wait to be scored
    std::uint32_t waiting_count[warps];                  // of a warp's waiting pairs
    std::uint32_t queued_count[warps], postponed_count[warps];  // where limits move
    std::uint32_t row_begin[warps][warp_tile_rows];      // of a queue in order of rows
    std::uint32_t survivor_count, task, begin;
};

__device__ std::uint32_t shared_address(const void* at) {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(at));
}
__device__ void copy_near(std::uint32_t to, const void* from) {  // through the first-level cache
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
__device__ void copy_far(std::uint32_t to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
__device__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int left>
__device__ void wait_until() {
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

/// Where this thread's two segments of a chunk come from: rows 64 apart of a tile.
struct Source {
    const std::int8_t* first;
    std::uint32_t second;  // bytes behind it

    __device__ Source(const SideView& side, std::uint32_t pitch, std::uint32_t tile)
        : first(side.quantised + (static_cast<std::size_t>(tile) * tile_rows + threadIdx.x / row_segments) * pitch +
                threadIdx.x % row_segments * segment_bytes),
          second(tile_rows / 2 * pitch) {}
};
static_assert(tile_rows * row_segments == 2 * block_threads);

/// Starts to copy a chunk of a tile's rows.
template <bool near>
__device__ void load_chunk(std::int8_t* to, const Source& source, std::uint32_t chunk) {
    const std::uint32_t place =
        shared_address(to) + place_in_chunk(threadIdx.x / row_segments, threadIdx.x % row_segments);
    const std::int8_t* from = source.first + chunk * chunk_coordinates;
    if constexpr (near) {
        copy_near(place, from);
        copy_near(place + chunk_bytes / 2, from + source.second);
    } else {
        copy_far(place, from);
        copy_far(place + chunk_bytes / 2, from + source.second);
    }
}

/// Sums of a warp's part of a tile: [row part][column part][2 * (row + 8?) + (column + 1?)].
struct Sums {
    std::int32_t of[row_parts][col_parts][4];
};

// The row and the column in its tile of a sum that this thread has.
__device__ std::uint32_t row_of(std::uint32_t r, std::uint32_t half) {
    const std::uint32_t warp = threadIdx.x / 32, in_part = r * 16 + half * 8 + threadIdx.x % 32 / 4;
    return (PYCURATE_WARPGROUPS ? warp * 16 : warp % 2 * 64) + in_part;
}
__device__ std::uint32_t col_of(std::uint32_t c, std::uint32_t second) {
    return (PYCURATE_WARPGROUPS ? 0 : threadIdx.x / 64 * 32) + c * 8 + threadIdx.x % 4 * 2 + second;
}

#if PYCURATE_WARPGROUPS

/// Makes what this thread copied visible to the tensor cores, which read shared memory by themselves.
__device__ void publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/// Describes a chunk for them: rows of 64 bytes in groups of eight, 512 bytes apart, segments moved as
/// place_in_chunk says, which is the 64-byte swizzle.
__device__ std::uint64_t describe(std::uint32_t address) {
    return static_cast<std::uint64_t>(address >> 4 & 0x3fffu) | 1ull << 16 |
           static_cast<std::uint64_t>(8 * chunk_coordinates >> 4) << 32 | 2ull << 62;
}

/// Multiplies 64 rows with 128 columns over 32 coordinates.
__device__ void multiply_add(std::int32_t (&s)[16][4], std::uint64_t a, std::uint64_t b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, 1;"
        : "+r"(s[0][0]), "+r"(s[0][1]), "+r"(s[0][2]), "+r"(s[0][3]), "+r"(s[1][0]), "+r"(s[1][1]),
          "+r"(s[1][2]), "+r"(s[1][3]), "+r"(s[2][0]), "+r"(s[2][1]), "+r"(s[2][2]), "+r"(s[2][3]),
          "+r"(s[3][0]), "+r"(s[3][1]), "+r"(s[3][2]), "+r"(s[3][3]), "+r"(s[4][0]), "+r"(s[4][1]),
          "+r"(s[4][2]), "+r"(s[4][3]), "+r"(s[5][0]), "+r"(s[5][1]), "+r"(s[5][2]), "+r"(s[5][3]),
          "+r"(s[6][0]), "+r"(s[6][1]), "+r"(s[6][2]), "+r"(s[6][3]), "+r"(s[7][0]), "+r"(s[7][1]),
          "+r"(s[7][2]), "+r"(s[7][3]), "+r"(s[8][0]), "+r"(s[8][1]), "+r"(s[8][2]), "+r"(s[8][3]),
          "+r"(s[9][0]), "+r"(s[9][1]), "+r"(s[9][2]), "+r"(s[9][3]), "+r"(s[10][0]), "+r"(s[10][1]),
          "+r"(s[10][2]), "+r"(s[10][3]), "+r"(s[11][0]), "+r"(s[11][1]), "+r"(s[11][2]), "+r"(s[11][3]),
          "+r"(s[12][0]), "+r"(s[12][1]), "+r"(s[12][2]), "+r"(s[12][3]), "+r"(s[13][0]), "+r"(s[13][1]),
          "+r"(s[13][2]), "+r"(s[13][3]), "+r"(s[14][0]), "+r"(s[14][1]), "+r"(s[14][2]), "+r"(s[14][3]),
          "+r"(s[15][0]), "+r"(s[15][1]), "+r"(s[15][2]), "+r"(s[15][3])
        : "l"(a), "l"(b));
}

__device__ void multiply_chunk(Sums& sums, const std::int8_t* a, const std::int8_t* b) {
    const std::uint32_t rows = threadIdx.x / 128 * 64 * chunk_coordinates;
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (std::uint32_t step = 0; step < chunk_coordinates; step += 32)
        multiply_add(sums.of[0], describe(shared_address(a) + rows + step), describe(shared_address(b) + step));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}

#else

__device__ void publish() {}

__device__ void load_matrices(std::uint32_t (&out)[4], std::uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
}
__device__ void multiply_add(std::int32_t (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                             std::uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ void multiply_chunk(Sums& sums, const std::int8_t* a, const std::int8_t* b) {
    const std::uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const std::uint32_t row = warp % 2 * 64 + lane % 16, col = warp / 2 * 32 + lane % 8 + lane / 16 * 8;
    const std::uint32_t base_a = shared_address(a), base_b = shared_address(b);
#pragma unroll
    for (std::uint32_t step = 0; step < chunk_coordinates / 32; ++step) {
        std::uint32_t of_b[col_parts / 2][4];
#pragma unroll
        for (std::uint32_t c = 0; c < col_parts / 2; ++c)
            load_matrices(of_b[c], base_b + place_in_chunk(col + c * 16, step * 2 + lane / 8 % 2));
#pragma unroll
        for (std::uint32_t r = 0; r < row_parts; ++r) {
            std::uint32_t of_a[4];
            load_matrices(of_a, base_a + place_in_chunk(row + r * 16, step * 2 + lane / 16));
#pragma unroll
            for (std::uint32_t c = 0; c < col_parts; ++c)
                multiply_add(sums.of[r][c], of_a, of_b[c / 2][c % 2 * 2], of_b[c / 2][c % 2 * 2 + 1]);
        }
    }
}

#endif

/// Bits of the pairs of this thread, [row part][half][column part][second], that may reach their limits after
/// stage s; `near`: those of which the estimate itself does, without what the bound adds.
template <bool cosine, bool moving>
__device__ std::uint64_t survivors(const JoinParams& p, const Shared& shared, const Sums& sums, std::uint32_t s,
                                   std::uint32_t tile_a, std::uint32_t tile_b, const std::int32_t* share_b,
                                   std::uint64_t* near) {
    std::uint64_t found = 0;
    if constexpr (cosine) {
        std::int32_t below = -1;  // the sign of all sums less their limits
        std::int32_t limits[row_parts][2];
#pragma unroll
        for (std::uint32_t r = 0; r < row_parts; ++r)
            limits[r][0] = shared.limits[s][row_of(r, 0)], limits[r][1] = shared.limits[s][row_of(r, 1)];
#pragma unroll
        for (std::uint32_t c = 0; c < col_parts; ++c) {
            const int2 share = *reinterpret_cast<const int2*>(share_b + col_of(c, 0));
#pragma unroll
            for (std::uint32_t r = 0; r < row_parts; ++r)
#pragma unroll
                for (std::uint32_t half = 0; half < 2; ++half) {
                    below &= sums.of[r][c][half * 2] + share.x - limits[r][half];
                    below &= sums.of[r][c][half * 2 + 1] + share.y - limits[r][half];
                }
        }
        if (below < 0) return 0;
        std::int32_t estimates[row_parts][2] = {};
        if constexpr (moving)
#pragma unroll
            for (std::uint32_t r = 0; r < row_parts; ++r)
#pragma unroll
                for (std::uint32_t half = 0; half < 2; ++half)
                    estimates[r][half] = limits[r][half] + shared.last_shares[row_of(r, half)];
        std::uint64_t close = 0;
#pragma unroll
        for (std::uint32_t r = 0; r < row_parts; ++r)
#pragma unroll
            for (std::uint32_t half = 0; half < 2; ++half)
#pragma unroll
                for (std::uint32_t c = 0; c < col_parts; ++c) {
                    const int2 share = *reinterpret_cast<const int2*>(share_b + col_of(c, 0));
#pragma unroll
                    for (std::uint32_t k = 0; k < 2; ++k) {
                        const std::int32_t sum = sums.of[r][c][half * 2 + k];
                        const std::uint64_t bit = 1ull << (((r * 2 + half) * col_parts + c) * 2 + k);
                        if (sum + (k == 0 ? share.x : share.y) >= limits[r][half]) found |= bit;
                        if (moving && sum >= estimates[r][half]) close |= bit;
                    }
                }
        if (near != nullptr) *near = close;
        return found;
    }
    const float unit = static_cast<float>(p.unit[s]), extra = static_cast<float>(p.extra[s]);
#pragma unroll
    for (std::uint32_t r = 0; r < row_parts; ++r)
#pragma unroll
        for (std::uint32_t half = 0; half < 2; ++half) {
            const std::uint32_t row = row_of(r, half), i = tile_a * tile_rows + row;
            const std::int32_t share = p.a.shares[s * p.a.positions + i];
            const float factor = p.a.factors[i], bias = p.a.biases[i], limit = shared.score_limits[row];
#pragma unroll
            for (std::uint32_t c = 0; c < col_parts; ++c)
#pragma unroll
                for (std::uint32_t k = 0; k < 2; ++k) {
                    const std::uint32_t j = tile_b * tile_rows + col_of(c, k);
                    const std::int32_t sum = sums.of[r][c][half * 2 + k] + share_b[col_of(c, k)];
                    const float most = unit * static_cast<float>(sum + share) + extra;
                    const float upper = factor * p.b.factors[j] * most + bias + p.b.biases[j];
                    if (!(upper < limit)) found |= 1ull << (((r * 2 + half) * col_parts + c) * 2 + k);
                }
        }
    if (near != nullptr) *near = ~0ull;
    return found;
}

/// Lists the survivors of all threads after the last stage, as far as there is room; they are counted first.
__device__ void list_survivors(Shared& shared, const Sums& sums, std::uint64_t found, std::uint64_t near,
                               const std::int32_t* share_b) {
    std::uint32_t at = 0;
    if (found != 0) at = atomicAdd(&shared.survivor_count, static_cast<std::uint32_t>(__popcll(found)));
    __syncthreads();
    if (found == 0 || shared.survivor_count > most_survivors) return;
#pragma unroll
    for (std::uint32_t r = 0; r < row_parts; ++r)
#pragma unroll
        for (std::uint32_t half = 0; half < 2; ++half)
#pragma unroll
            for (std::uint32_t c = 0; c < col_parts; ++c)
#pragma unroll
                for (std::uint32_t k = 0; k < 2; ++k) {
                    const std::uint32_t bit = ((r * 2 + half) * col_parts + c) * 2 + k;
                    if ((found >> bit & 1u) == 0) continue;
                    const std::uint32_t row = row_of(r, half), col = col_of(c, k);
                    shared.survivors[at++] = {row * tile_rows + col | ((near >> bit & 1u) != 0 ? near_bit : 0u),
                                              sums.of[r][c][half * 2 + k] + share_b[col]};
                }
}

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

// Where limits move, pairs wait in queues of their warp, in the device's memory. Those of which the estimate
// reaches the limit are scored when a warp has many; of which only the upper bound does, when limits are final:
// most fall to them.

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
    const double dot =
        canonical_dot(p.a.rows.row(p.a.row_numbers[i]), p.b.rows.row(p.b.row_numbers[j]), p.a.rows.d,
                      p.a.rows.element, p.a.rows.aligned && p.b.rows.aligned, ~0u);
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
    if (threadIdx.x % 32 == 0 && pairs > 0) atomicAdd(&p.counters->scored, static_cast<unsigned long long>(pairs));
}

/// Whether a pair of positions is one.
__device__ bool is_pair(const JoinParams& p, std::uint32_t i, std::uint32_t j) {
    return i < p.a.n && j < p.b.n && (!p.self || (p.question == Question::nearest ? i != j : i < j));
}

/// Pairs of this warp's rows, one a lane where `there`, wait to be scored. At most 15 waited before.
__device__ void wait_for_score(const JoinParams& p, Shared& shared, bool there, std::uint32_t i, std::uint32_t j) {
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
        const Survivor survivor =
            every ? Survivor{(warp * warp_tile_rows * tile_rows + at) | near_bit, unknown}
                  : shared.survivors[min(at, count - 1u)];
        const std::uint32_t row = survivor.place / tile_rows % tile_rows, col = survivor.place % tile_rows;
        const std::uint32_t i = tile_a * tile_rows + row, j = j0 + col;
        bool mine = at < count && row / warp_tile_rows == warp && is_pair(p, i, j);
        if constexpr (moving) {
            const uint2 pair = make_uint2(j, pack_bound(row, survivor.sum));
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

/// Scores what this warp's queue holds, row by row, and puts it into their lists.
__device__ __noinline__ void score_queue(const JoinParams& p, Shared& shared, std::uint32_t tile_a) {
    const std::uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, row0 = warp * warp_tile_rows;
    const std::uint32_t queued = shared.queued_count[warp];
    if (queued == 0) return;
    const uint2* queue = queue_of(p, 0);
    uint2* by_row = queue_of(p, 1);
    // What a limit has overtaken meanwhile is left out.
    const auto still = [&](const uint2& pair) {
        return p.metric != Metric::cosine || !p.screened ||
               bound_of(pair.y) >= shared.limits[p.stages - 1][row0 + (pair.y >> 28)];
    };
    std::uint32_t* begins = shared.row_begin[warp];
    if (lane < warp_tile_rows) begins[lane] = 0;
    __syncwarp();
    for (std::uint32_t at = lane; at < queued; at += 32)
        if (still(queue[at])) atomicAdd(begins + (queue[at].y >> 28), 1u);
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
        if (still(pair)) by_row[atomicAdd(begins + (pair.y >> 28), 1u)] = pair;
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
            scored ? static_cast<unsigned long long>(Ranked::of(score, p.b.order[pair.x])) : 0;
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
    for (std::uint32_t begin = 0; begin < count; begin += 32) {
        const uint2 pair = postponed[min(begin + lane, count - 1u)];
        const bool there = begin + lane < count &&
                           bound_of(pair.y) >= shared.limits[p.stages - 1][warp * warp_tile_rows + (pair.y >> 28)];
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

__device__ void start_tile(const JoinParams& p, Shared& shared, const Source& source, std::uint32_t tile_b,
                           std::uint32_t buffer, std::uint32_t first_stage) {
    const std::uint32_t chunks = min(p.stage_chunks[p.stages - 1], resident_chunks);
    for (std::uint32_t chunk = 0; chunk < chunks; ++chunk)
        load_chunk<false>(shared.b[buffer][chunk], source, chunk_at(p, chunk));
    if (threadIdx.x < tile_rows * 4 / segment_bytes)
        copy_far(shared_address(shared.share_b[buffer] + threadIdx.x * 4),
                 p.b.shares + first_stage * p.b.positions + tile_b * tile_rows + threadIdx.x * 4);
}

/// Screens one tile; whether a pair of it may matter, which is then a survivor.
template <bool cosine, bool moving>
__device__ bool screen_tile(const JoinParams& p, Shared& shared, const Source& source_a, std::uint32_t tile_a,
                            std::uint32_t tile_b, std::uint32_t buffer, std::uint32_t plan) {
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
    std::uint32_t stage = __ffs(static_cast<int>(plan)) - 1;
    const std::uint32_t first_stage = stage;
    const Source source_b(p.b, p.pitch, tile_b);
    const auto start_ring = [&](std::uint32_t chunk) {
        if (chunk < chunks) {
            std::int8_t(*slot)[chunk_bytes] = shared.ring[chunk % ring_slots];
            load_chunk<true>(slot[0], source_a, chunk_at(p, chunk));
            load_chunk<false>(slot[1], source_b, chunk_at(p, chunk));
        }
        commit();
    };
    // Where no tile is expected to end before, the next chunks are fetched while the first are multiplied.
    bool ring_started = p.stage_chunks[first_stage] > resident_chunks;
    if (ring_started) {
        start_ring(resident_chunks);
        start_ring(resident_chunks + 1);
    }
    for (std::uint32_t chunk = 0; chunk < chunks; ++chunk) {
        if (chunk < resident_chunks) {
            multiply_chunk(sums, shared.a[chunk], shared.b[buffer][chunk]);
        } else {
            if (!ring_started) {
                start_ring(chunk);
                start_ring(chunk + 1);
                ring_started = true;
            }
            wait_until<1>();
            publish();
            __syncthreads();
            start_ring(chunk + 2);
            multiply_chunk(sums, shared.ring[chunk % ring_slots][0], shared.ring[chunk % ring_slots][1]);
        }
        if (chunk + 1 != p.stage_chunks[stage]) continue;
        const bool last = chunk + 1 == chunks;
        const std::int32_t* shares = stage == first_stage
                                         ? shared.share_b[buffer]
                                         : p.b.shares + stage * p.b.positions + tile_b * tile_rows;
        std::uint64_t near = 0;
        const std::uint64_t found =
            survivors<cosine, moving>(p, shared, sums, stage, tile_a, tile_b, shares, last ? &near : nullptr);
        const bool alive = __syncthreads_or(found != 0);
        if (last && alive && p.sample == 0) list_survivors(shared, sums, found, near, shares);
        if (threadIdx.x == 0 && p.sample != 0) {
            atomicAdd(&p.counters->screened[stage], 1ull);
            if (alive) atomicAdd(&p.counters->alive[stage], 1ull);
        }
        if (!alive && p.sample == 0) return false;
        plan &= plan - 1u;
        if (!last) stage = __ffs(static_cast<int>(plan)) - 1;
        if (chunk + 1 == p.used_prefix) clear();
    }
    return true;
}

template <bool cosine, bool moving>
__global__ void __launch_bounds__(block_threads, 2) join_tiles(const __grid_constant__ JoinParams p) {
    extern __shared__ char memory[];
    Shared& shared = *reinterpret_cast<Shared*>((reinterpret_cast<std::uintptr_t>(memory) + 1023) / 1024 * 1024);
    const std::uint32_t first_stage = __ffs(static_cast<int>(p.plan)) - 1;
    constexpr bool square = moving;  // both halves of a self-join
    if (threadIdx.x == 0) shared.survivor_count = 0;
    if (threadIdx.x < warps)
        shared.waiting_count[threadIdx.x] = shared.queued_count[threadIdx.x] = shared.postponed_count[threadIdx.x] = 0;
    std::uint32_t buffer = 0;
    for (;;) {
        __syncthreads();
        if (threadIdx.x == 0) {
            shared.task = atomicAdd(&p.counters->next_task, 1u);
            shared.begin = p.sample == 0 && shared.task < p.tasks_end ? p.progress[shared.task] : 0;
        }
        __syncthreads();
        const std::uint32_t task = shared.task * (p.sample != 0 ? p.sample : 1);
        if (task >= p.tasks_end) return;
        const std::uint32_t strip = strip_of(p.first_task, p.strips, task);
        const std::uint32_t tile_a = task - p.first_task[strip];
        const std::uint32_t tile_0 = strip * p.tiles_of_strip;
        std::uint32_t end = min(tile_0 + p.tiles_of_strip, p.tiles_b);
        std::uint32_t begin = tile_0 + shared.begin;
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
            if (p.screened)
                shared.last_shares[threadIdx.x] = p.a.shares[(p.stages - 1) * p.a.positions + i];
        }
        // The nearest of a row mostly lie beside it where rows have the order of their clusters: from there on.
        const std::uint32_t turn = square && p.self && p.sample == 0 ? tile_a : 0;
        const auto turned = [&](std::uint32_t tile) { return tile + turn < end ? tile + turn : tile + turn - end; };
        const Source source_a(p.a, p.pitch, tile_a);
        if (p.screened) {
            for (std::uint32_t chunk = 0; chunk < min(p.stage_chunks[p.stages - 1], resident_chunks); ++chunk)
                load_chunk<true>(shared.a[chunk], source_a, chunk_at(p, chunk));
            start_tile(p, shared, Source(p.b, p.pitch, turned(begin)), turned(begin), buffer, first_stage);
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
            if (p.screened && at + 1 < end)
                start_tile(p, shared, Source(p.b, p.pitch, turned(at + 1)), turned(at + 1), buffer ^ 1u, first_stage);
            commit();
            bool alive = true;
            if (p.question == Question::forest && p.sample == 0 &&
                __syncthreads_or(threadIdx.x == 0 && settled(p, tile_a, tile_b))) {
                if (threadIdx.x == 0) atomicAdd(&p.counters->skipped, 1ull);
                continue;
            }
            if (p.screened) alive = screen_tile<cosine, moving>(p, shared, source_a, tile_a, tile_b, buffer, p.plan);
            if (!alive || p.sample != 0) continue;
            wait_until<0>();
            __syncthreads();
            take_survivors<moving>(p, shared, tile_a, tile_b, !p.screened || shared.survivor_count > most_survivors);
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
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernels[1][1], static_cast<int>(block_threads),
                                                        shared_bytes),
          "asking how many blocks it holds");
    return static_cast<std::uint32_t>(count * std::max(blocks, 1));
}

void launch_join(const JoinParams& params, std::uint32_t blocks) {
    kernels[params.metric == Metric::cosine][params.question == Question::nearest]<<<blocks, block_threads,
                                                                                    shared_bytes>>>(params);
    check(cudaGetLastError(), "starting a join");
}

}  // namespace pycurate::cuda
