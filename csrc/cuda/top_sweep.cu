// Sweeps over the largest few values of each row. A warp has a row: what its neighbours hold is added up by
// label in a table in shared memory, in the order of the edges.
#include <cuda_runtime.h>

#include "cuda/block_order.h"
#include "cuda/graph.h"
#include "kernels/graph/labelled.h"

namespace pycurate::cuda {
namespace {

using graph::block_rows, graph::Labelled, graph::no_label, graph::TopSweep;
constexpr std::uint32_t warp_threads = 32, block_warps = 8, table_labels = 256, all_threads = ~0u;

/// One warp's sums by label. A row with more labels than fit is gone over again, part of the labels at a
/// time.
struct Table {
    std::uint32_t labels[table_labels];  // in the order they came
    float sums[table_labels];
};

/// Where each thread's label stands in a table, which gets those it lacks, with sums of 0; threads without
/// one pass no_label. False, for all threads, where they don't fit.
__device__ bool find_places(Table& table, std::uint32_t& count, std::uint32_t label, std::uint32_t& place) {
    const std::uint32_t lane = threadIdx.x % warp_threads;
    const bool has = label != no_label;
    bool found = !has;
    for (std::uint32_t j = 0; j < count; j += 4) {
        const uint4 four = *reinterpret_cast<const uint4*>(table.labels + j);
        const std::uint32_t there[] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (std::uint32_t u = 0; u < 4; ++u)
            if (has && j + u < count && there[u] == label) place = j + u, found = true;
    }
    const std::uint32_t seeking = __ballot_sync(all_threads, !found);
    if (seeking == 0) return true;
    std::uint32_t first = lane;  // of the threads that have the same label
    if (!found)
        first = static_cast<std::uint32_t>(__ffs(static_cast<int>(__match_any_sync(seeking, label)))) - 1;
    const std::uint32_t firsts = __ballot_sync(all_threads, !found && first == lane);
    const auto fresh = static_cast<std::uint32_t>(__popc(firsts));
    if (count + fresh > table_labels) return false;
    __syncwarp();  // four labels at a time are read, of which the last may be those that come now
    if (!found) {
        place = count + static_cast<std::uint32_t>(__popc(firsts & ((1u << first) - 1u)));
        if (first == lane) table.labels[place] = label, table.sums[place] = 0.0f;
    }
    count += fresh;
    __syncwarp();
    return true;
}

/// One label that a neighbour holds.
struct Item {
    Labelled held;
    float weight;
};

/// Goes over the labels of a row's neighbours, a warp's threads side by side.
template <class Index>
struct Walk {
    const TopSweep& sweep;
    std::uint64_t edge, last;
    std::uint32_t slot, edge_step, slot_step;

    __device__ Walk(const TopSweep& of, std::uint64_t first, std::uint64_t last_) : sweep(of), last(last_) {
        const std::uint32_t lane = threadIdx.x % warp_threads, kept = static_cast<std::uint32_t>(of.kept);
        edge = first + lane / kept, slot = lane % kept;
        edge_step = warp_threads / kept, slot_step = warp_threads % kept;
    }
    __device__ Item next() {
        Item item{{no_label, 0.0f}, 0.0f};
        if (edge < last) {
            const auto row = static_cast<std::size_t>(static_cast<const Index*>(sweep.edges.indices)[edge]);
            const auto held = __ldg(reinterpret_cast<const uint2*>(sweep.state + row * sweep.kept + slot));
            item = {{held.x, __uint_as_float(held.y)}, sweep.edges.values[edge]};
        }
        edge += edge_step, slot += slot_step;
        if (slot >= sweep.kept) slot -= static_cast<std::uint32_t>(sweep.kept), ++edge;
        return item;
    }
};

/// The sums of one pass's labels; false where they don't fit.
template <class Index>
__device__ bool add_up(const TopSweep& sweep, std::size_t i, std::uint32_t pass, std::uint32_t passes,
                       Table& table, std::uint32_t& count) {
    const std::uint32_t lane = threadIdx.x % warp_threads, below = (1u << lane) - 1u;
    const auto& seeds = sweep.seeds;
    count = 0;
    if (seeds.clamped == nullptr || seeds.clamped[i] == 0) {
        const std::uint64_t first = sweep.edges.indptr[i], last = sweep.edges.indptr[i + 1];
        Walk<Index> walk(sweep, first, last);
        const std::uint64_t items = (last - first) * sweep.kept;
        Item item = walk.next();
        for (std::uint64_t done = 0; done < items; done += warp_threads) {
            const Item later = walk.next();  // read while this one is added
            if (!in_pass(item.held.label, pass, passes)) item.held.label = no_label;
            std::uint32_t place = 0;
            if (!find_places(table, count, item.held.label, place)) return false;
            const bool has = item.held.label != no_label;
            // Of equal labels the one of the earlier edge comes first.
            const std::uint32_t same = __match_any_sync(all_threads, has ? place : table_labels + lane);
            const auto turn = static_cast<std::uint32_t>(__popc(same & below));
            const std::uint32_t turns = __reduce_max_sync(all_threads, has ? turn + 1 : 0);
            for (std::uint32_t t = 0; t < turns; ++t) {
                if (has && turn == t)
                    table.sums[place] = __fmaf_rn(item.weight, item.held.value, table.sums[place]);
                __syncwarp();
            }
            item = later;
        }
    }
    for (std::uint32_t j = lane; j < count; j += warp_threads) table.sums[j] *= sweep.alpha;
    __syncwarp();
    if (seeds.indptr == nullptr) return true;
    const std::uint64_t last = seeds.indptr[i + 1];
    for (std::uint64_t begin = seeds.indptr[i]; begin < last; begin += warp_threads) {
        const std::uint64_t s = begin + lane;
        std::uint32_t label = s < last ? seeds.labels[s] : no_label, place = 0;
        if (!in_pass(label, pass, passes)) label = no_label;
        if (!find_places(table, count, label, place)) return false;
        if (label != no_label) table.sums[place] += seeds.values[s];
        __syncwarp();
    }
    return true;
}

/// The largest of a table's sums to `out`: all there are where there is one pass, else among those of others.
__device__ void keep_largest(Table& table, std::uint32_t count, Labelled* out, std::uint32_t kept,
                             bool only_pass) {
    const std::uint32_t lane = threadIdx.x % warp_threads;
    for (std::uint32_t k = 0; k < kept; ++k) {
        std::uint32_t most = 0, label = no_label, place = 0;  // bits of positive floats rise with them
        for (std::uint32_t j = lane; j < count; j += warp_threads) {
            const float sum = table.sums[j];
            if (!(sum > 0.0f)) continue;
            const std::uint32_t bits = __float_as_uint(sum);
            if (bits > most || (bits == most && table.labels[j] < label))
                most = bits, label = table.labels[j], place = j;
        }
        const std::uint32_t largest = __reduce_max_sync(all_threads, most);
        if (largest == 0) return;
        const std::uint32_t lowest = __reduce_min_sync(all_threads, most == largest ? label : no_label);
        const bool mine = most == largest && label == lowest;
        bool kept_it = true;
        if (mine) {
            table.sums[place] = 0.0f;
            const Labelled item{lowest, __uint_as_float(largest)};
            if (only_pass)
                out[k] = item;
            else
                kept_it = graph::insert(out, kept, item);
        }
        __syncwarp();
        if (__any_sync(all_threads, mine && !kept_it)) return;
    }
}

template <class Index>
__global__ void __launch_bounds__(block_warps* warp_threads) sweep_rows(TopSweep sweep) {
    __shared__ __align__(16) Table tables[block_warps];
    Table& table = tables[threadIdx.x / warp_threads];
    const std::size_t i = std::size_t{blockIdx.x} * block_warps + threadIdx.x / warp_threads;
    if (i >= sweep.edges.rows) return;
    const auto kept = static_cast<std::uint32_t>(sweep.kept);
    Labelled* out = sweep.out + i * kept;
    std::uint32_t passes = 1, pass = 0;
    while (pass < passes) {
        if (pass == 0) {
            for (std::uint32_t k = threadIdx.x % warp_threads; k < kept; k += warp_threads)
                out[k] = {no_label, 0.0f};
            __syncwarp();
        }
        std::uint32_t count = 0;
        if (!add_up<Index>(sweep, i, pass, passes, table, count)) {
            __syncwarp();
            passes *= 2, pass = 0;
            continue;
        }
        keep_largest(table, count, out, kept, passes == 1);
        __syncwarp();
        ++pass;
    }
}

/// changes[b] = the sum, in order, over the rows of block b.
__global__ void __launch_bounds__(256) sum_changes(TopSweep sweep, double* changes) {
    __shared__ double of_rows[block_rows];
    const std::size_t first = std::size_t{blockIdx.x} * block_rows;
    const std::size_t rows = min(block_rows, sweep.edges.rows - first);
    for (std::size_t r = threadIdx.x; r < rows; r += blockDim.x)
        of_rows[r] =
            graph::change_of(sweep.out + (first + r) * sweep.kept,
                             sweep.state + (sweep.edges.first_row + first + r) * sweep.kept, sweep.kept);
    __syncthreads();
    if (threadIdx.x != 0) return;
    double change = 0.0;
#pragma unroll 8
    for (std::size_t r = 0; r < rows; ++r) change += of_rows[r];
    changes[blockIdx.x] = change;
}

}  // namespace

void GraphRows::sweep_top(TopSweep sweep) {
    const Current current(device_);
    sweep.edges = edges<float>();
    sweep.seeds = seeds<float>();
    if (rows_ == 0) return;
    double* sums = scratch(blocks());
    const auto kernel = wide_ ? sweep_rows<std::uint64_t> : sweep_rows<std::uint32_t>;
    kernel<<<static_cast<std::uint32_t>((rows_ + block_warps - 1) / block_warps),
             block_warps * warp_threads>>>(sweep);
    check(cudaGetLastError(), "starting a sweep");
    sum_changes<<<static_cast<std::uint32_t>(blocks()), 256>>>(sweep, sums);
    check(cudaGetLastError(), "adding up changes");
    copy_out(sweep.changes, sums, blocks() * sizeof(double));
}

}  // namespace pycurate::cuda
