// Sweeps over dense values and conjugate gradients. A column's sum over the edges of a row runs in their
// order by one thread; sums over rows run in the order of the CPU's.
#include <cuda_runtime.h>

#include <algorithm>

#include "cuda/block_sums.cuh"
#include "cuda/graph.h"

namespace pycurate::cuda {
namespace {

using graph::block_rows, graph::DenseSweep, graph::Edges;
constexpr std::uint32_t change_lanes = 16;  // graph::change_lanes
constexpr std::uint32_t edges_at_once = 4;

__device__ float fused(float x, float y, float sum) { return __fmaf_rn(x, y, sum); }
__device__ double fused(double x, double y, double sum) { return __fma_rn(x, y, sum); }
__device__ float size_of(float x) { return fabsf(x); }
__device__ double size_of(double x) { return fabs(x); }

/// 16 bytes of a row, which one thread reads at a time.
template <class T>
struct __align__(16) Part {
    static constexpr std::uint32_t lanes = 16 / sizeof(T);
    T at[lanes];
    __device__ static Part load(const T* from) {
        Part result;
        *reinterpret_cast<float4*>(result.at) = *reinterpret_cast<const float4*>(from);
        return result;
    }
    /// Of memory that no thread writes during the kernel.
    __device__ static Part load_constant(const T* from) {
        Part result;
        *reinterpret_cast<float4*>(result.at) = __ldg(reinterpret_cast<const float4*>(from));
        return result;
    }
    __device__ void store(T* to) const {
        *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(at);
    }
};

/// The weighted sum over the edges of a row, of the columns that begin at `state`.
template <class T, class Index>
__device__ Part<T> gather(const Edges<T>& edges, std::size_t i, const T* state, std::size_t width) {
    Part<T> sum{};
    const auto* indices = static_cast<const Index*>(edges.indices);
    std::uint64_t e = edges.indptr[i];
    const std::uint64_t last = edges.indptr[i + 1];
    for (; e + edges_at_once <= last; e += edges_at_once) {
        T weights[edges_at_once];
        Part<T> rows[edges_at_once];
#pragma unroll
        for (std::uint32_t u = 0; u < edges_at_once; ++u) {
            weights[u] = __ldg(edges.values + e + u);
            rows[u] =
                Part<T>::load_constant(state + static_cast<std::size_t>(__ldg(indices + e + u)) * width);
        }
#pragma unroll
        for (std::uint32_t u = 0; u < edges_at_once; ++u)
#pragma unroll
            for (std::uint32_t l = 0; l < Part<T>::lanes; ++l)
                sum.at[l] = fused(weights[u], rows[u].at[l], sum.at[l]);
    }
    for (; e < last; ++e) {
        const T weight = __ldg(edges.values + e);
        const auto row = Part<T>::load_constant(state + static_cast<std::size_t>(__ldg(indices + e)) * width);
#pragma unroll
        for (std::uint32_t l = 0; l < Part<T>::lanes; ++l) sum.at[l] = fused(weight, row.at[l], sum.at[l]);
    }
    return sum;
}

/// Sums over the edges of heavy rows, (count, width), made before the others.
template <class T>
struct Heavy {
    const std::uint32_t* rows;
    std::uint32_t count;
    const T* sums;
};

// A group has a tile of edges in shared memory, 16 KiB of their rows, and one of its warps adds them up while
// the others read the next.
constexpr std::uint32_t heavy_parts = 1024, heavy_columns = 16, heavy_tile = 256, adding_warp = 7;

/// Sums over the edges of heavy row blockIdx.x, of the columns from 16 parts * blockIdx.y on.
template <class T, class Index>
__global__ void __launch_bounds__(sweep_threads)
    gather_heavy(Edges<T> edges, const std::uint32_t* heavy, const T* state, std::uint32_t width, T* sums) {
    constexpr std::uint32_t lanes = Part<T>::lanes;
    __shared__ Part<T> parts[2][heavy_parts];
    __shared__ T weights[2][heavy_tile];
    const std::uint32_t row = heavy[blockIdx.x], column = blockIdx.y * heavy_columns * lanes;
    const std::uint32_t columns = min(heavy_columns, (width - column) / lanes);
    const std::uint32_t at_once = min(heavy_tile, heavy_parts / columns);
    const bool adds = threadIdx.x / 32 == adding_warp;
    const std::uint32_t lane = threadIdx.x % 32;
    const auto* indices = static_cast<const Index*>(edges.indices);
    const std::uint64_t last = edges.indptr[row + 1];
    Part<T> sum{};
    std::uint32_t tile = 0;
    for (std::uint64_t e = edges.indptr[row]; e < last; e += at_once, ++tile) {
        const auto count = static_cast<std::uint32_t>(min(std::uint64_t{at_once}, last - e));
        auto* here = parts[tile & 1u];
        T* weight = weights[tile & 1u];
        if (!adds) {
#pragma unroll 4
            for (std::uint32_t p = threadIdx.x; p < count * columns; p += 32 * adding_warp)
                here[p] = Part<T>::load_constant(
                    state + static_cast<std::size_t>(__ldg(indices + e + p / columns)) * width + column +
                    p % columns * lanes);
            for (std::uint32_t p = threadIdx.x; p < count; p += 32 * adding_warp)
                weight[p] = __ldg(edges.values + e + p);
        }
        __syncthreads();
        if (adds && lane < columns)
            for (std::uint32_t p = 0; p < count; ++p)
#pragma unroll
                for (std::uint32_t l = 0; l < lanes; ++l)
                    sum.at[l] = fused(weight[p], here[p * columns + lane].at[l], sum.at[l]);
    }
    if (adds && lane < columns) sum.store(sums + std::size_t{blockIdx.x} * width + column + lane * lanes);
}

/// The sum over the edges of a row, of the columns from `column` on.
template <class T, class Index>
__device__ Part<T> sum_of(const Edges<T>& edges, const Heavy<T>& heavy, std::size_t i, const T* state,
                          std::size_t width, std::uint32_t column) {
    if (heavy.count > 0 && edges.indptr[i + 1] - edges.indptr[i] > heavy_edges)
        return Part<T>::load(heavy.sums +
                             place_among(heavy.rows, heavy.count, static_cast<std::uint32_t>(i)) * width +
                             column);
    return gather<T, Index>(edges, i, state + column, width);
}

/// `lanes` sums, folded +8, +4, +2, +1, by one thread.
__device__ double folded(double* lanes) {
    for (std::uint32_t half = change_lanes / 2; half > 0; half /= 2)
        for (std::uint32_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    return lanes[0];
}

template <class T, class Index>
__global__ void __launch_bounds__(sweep_threads)
    sweep_block(DenseSweep<T> sweep, Heavy<T> heavy, double* changes) {
    constexpr std::uint32_t lanes = Part<T>::lanes;
    __shared__ T terms[2][tile_values];
    __shared__ double sums[change_lanes];
    if (threadIdx.x < change_lanes) sums[threadIdx.x] = 0.0;
    const std::size_t first = std::size_t{blockIdx.x} * block_rows;
    const auto width = static_cast<std::uint32_t>(sweep.width);
    const auto rows = static_cast<std::uint32_t>(min(block_rows, sweep.edges.rows - first));
    const auto& seeds = sweep.seeds;
    walk_block<lanes>(
        rows * width, terms,
        [&](std::uint32_t at, T* place) {
            const std::size_t i = first + at / width;
            const std::uint32_t column = at % width;
            Part<T> value{};
            if (seeds.clamped == nullptr || seeds.clamped[i] == 0)
                value = sum_of<T, Index>(sweep.edges, heavy, i, sweep.state, width, column);
#pragma unroll
            for (std::uint32_t l = 0; l < lanes; ++l) value.at[l] = sweep.alpha * value.at[l];
            if (seeds.indptr != nullptr && seeds.indptr[i] != seeds.indptr[i + 1]) {
                Part<T> added{};
                for (std::uint64_t s = seeds.indptr[i]; s < seeds.indptr[i + 1]; ++s)
#pragma unroll
                    for (std::uint32_t l = 0; l < lanes; ++l)
                        if (seeds.labels[s] == column + l) added.at[l] = seeds.values[s];
#pragma unroll
                for (std::uint32_t l = 0; l < lanes; ++l) value.at[l] += added.at[l];
            }
            const auto current =
                Part<T>::load_constant(sweep.state + (sweep.edges.first_row + i) * width + column);
#pragma unroll
            for (std::uint32_t l = 0; l < lanes; ++l) place[l] = size_of(value.at[l] - current.at[l]);
            if (sweep.previous != nullptr) {
                const auto previous = Part<T>::load(sweep.previous + i * width + column);
#pragma unroll
                for (std::uint32_t l = 0; l < lanes; ++l)
                    value.at[l] = fused(sweep.omega, value.at[l] - previous.at[l], previous.at[l]);
            }
            value.store(sweep.out + i * width + column);
        },
        [&](std::uint32_t begin, std::uint32_t count, const T* here, std::uint32_t tile) {
            add_chains(begin, count, here, tile, change_lanes, sums,
                       [](T term, double sum) { return sum + static_cast<double>(term); });
        });
    if (threadIdx.x == 0) changes[blockIdx.x] = folded(sums);
}

struct Pair {
    float direction, product;
};

template <class Index>
__global__ void __launch_bounds__(sweep_threads)
    product_block(Edges<float> edges, Heavy<float> heavy, const std::uint8_t* clamped, const float* direction,
                  float* product, std::uint32_t width, float alpha, double* dots) {
    constexpr std::uint32_t lanes = Part<float>::lanes;
    __shared__ Pair terms[2][tile_values];
    const std::size_t first = std::size_t{blockIdx.x} * block_rows;
    const auto rows = static_cast<std::uint32_t>(min(block_rows, edges.rows - first));
    double* sums = dots + std::size_t{blockIdx.x} * width;
    walk_block<lanes>(
        rows * width, terms,
        [&](std::uint32_t at, Pair* place) {
            const std::size_t i = first + at / width;
            const std::uint32_t column = at % width;
            Part<float> own{}, applied{};
            if (clamped == nullptr || clamped[i] == 0) {
                own = Part<float>::load_constant(direction + i * width + column);
                applied = sum_of<float, Index>(edges, heavy, i, direction, width, column);
#pragma unroll
                for (std::uint32_t l = 0; l < lanes; ++l)
                    applied.at[l] = fused(-alpha, applied.at[l], own.at[l]);
            }
            applied.store(product + i * width + column);
#pragma unroll
            for (std::uint32_t l = 0; l < lanes; ++l) place[l] = {own.at[l], applied.at[l]};
        },
        [&](std::uint32_t begin, std::uint32_t count, const Pair* here, std::uint32_t tile) {
            add_chains(begin, count, here, tile, width, sums, [](Pair term, double sum) {
                return __fma_rn(static_cast<double>(term.direction), static_cast<double>(term.product), sum);
            });
        });
}

__global__ void __launch_bounds__(sweep_threads) step_block(graph::CgStep of) {
    constexpr std::uint32_t lanes = Part<float>::lanes;
    __shared__ float terms[2][tile_values];
    __shared__ double sizes[change_lanes];
    if (threadIdx.x < change_lanes) sizes[threadIdx.x] = 0.0;
    const std::size_t first = std::size_t{blockIdx.x} * block_rows;
    const auto width = static_cast<std::uint32_t>(of.width);
    const auto rows = static_cast<std::uint32_t>(min(block_rows, of.rows - first));
    double* sums = of.squares + std::size_t{blockIdx.x} * width;
    walk_block<lanes>(
        rows * width, terms,
        [&](std::uint32_t at, float* place) {
            const std::size_t from = first * width + at;
            const auto step = Part<float>::load_constant(of.step + at % width);
            const auto direction = Part<float>::load(of.direction + from),
                       product = Part<float>::load(of.product + from);
            auto x = Part<float>::load(of.x + from), residual = Part<float>::load(of.residual + from);
#pragma unroll
            for (std::uint32_t l = 0; l < lanes; ++l) {
                x.at[l] = fused(step.at[l], direction.at[l], x.at[l]);
                residual.at[l] = fused(0.0f - step.at[l], product.at[l], residual.at[l]);
                place[l] = residual.at[l];
            }
            x.store(of.x + from);
            residual.store(of.residual + from);
        },
        [&](std::uint32_t begin, std::uint32_t count, const float* here, std::uint32_t tile) {
            add_chains(begin, count, here, tile, width, sums, [](float term, double sum) {
                return __fma_rn(static_cast<double>(term), static_cast<double>(term), sum);
            });
            add_chains(begin, count, here, tile + 1, change_lanes, sizes,
                       [](float term, double sum) { return sum + static_cast<double>(size_of(term)); });
        });
    if (threadIdx.x == 0) of.changes[blockIdx.x] = folded(sizes);
}

__global__ void turn_values(const float* residual, const float* ratio, float* direction, std::size_t values,
                            std::uint32_t width) {
    constexpr std::uint32_t lanes = Part<float>::lanes;
    const std::size_t at = (std::size_t{blockIdx.x} * blockDim.x + threadIdx.x) * lanes;
    if (at >= values) return;
    const auto factor = Part<float>::load_constant(ratio + at % width);
    const auto from = Part<float>::load_constant(residual + at);
    auto to = Part<float>::load(direction + at);
#pragma unroll
    for (std::uint32_t l = 0; l < lanes; ++l) to.at[l] = fused(factor.at[l], to.at[l], from.at[l]);
    to.store(direction + at);
}

/// totals[c] = the sums of column c over all blocks, in order.
__global__ void merge_blocks(const double* sums, std::size_t blocks, std::uint32_t width, double* totals) {
    const std::uint32_t column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    double total = 0.0;
#pragma unroll 16
    for (std::size_t b = 0; b < blocks; ++b) total += sums[b * width + column];
    totals[column] = total;
}

}  // namespace

template <class T>
const T* GraphRows::sum_heavy(const T* state, std::size_t width) {
    if (heavy_count_ == 0) return nullptr;
    const std::size_t bytes = heavy_count_ * width * sizeof(T);
    if (heavy_sums_.size() < bytes) heavy_sums_ = Buffer<char>(bytes);
    auto* sums = reinterpret_cast<T*>(heavy_sums_.get());
    const std::size_t columns = std::size_t{heavy_columns} * Part<T>::lanes;
    const auto kernel = wide_ ? gather_heavy<T, std::uint64_t> : gather_heavy<T, std::uint32_t>;
    kernel<<<dim3(heavy_count_, static_cast<std::uint32_t>((width + columns - 1) / columns)),
             sweep_threads>>>(edges<T>(), heavy_.get(), state, static_cast<std::uint32_t>(width), sums);
    check(cudaGetLastError(), "adding up rows of many edges");
    return sums;
}

template <class T>
void GraphRows::sweep_dense(DenseSweep<T> sweep) {
    const Current current(device_);
    sweep.edges = edges<T>();
    sweep.seeds = seeds<T>();
    if (rows_ == 0) return;
    double* host = sweep.changes;
    double* sums = scratch(blocks());
    const auto kernel = wide_ ? sweep_block<T, std::uint64_t> : sweep_block<T, std::uint32_t>;
    const Heavy<T> heavy{heavy_.get(), heavy_count_, sum_heavy(sweep.state, sweep.width)};
    kernel<<<static_cast<std::uint32_t>(blocks()), sweep_threads>>>(sweep, heavy, sums);
    check(cudaGetLastError(), "starting a sweep");
    copy_out(host, sums, blocks() * sizeof(double));
}
template void GraphRows::sweep_dense(DenseSweep<float>);
template void GraphRows::sweep_dense(DenseSweep<double>);

void GraphRows::merge_columns(const double* sums, std::size_t width, double* host) {
    double* totals = scratch_.get() + blocks() * (width + 1);
    merge_blocks<<<static_cast<std::uint32_t>((width + 31) / 32), 32>>>(
        sums, blocks(), static_cast<std::uint32_t>(width), totals);
    check(cudaGetLastError(), "adding up sums of blocks");
    copy_out(host, totals, width * sizeof(double));
}

void GraphRows::cg_product(const float* direction, float* product, std::size_t width, float alpha,
                           double* dots) {
    const Current current(device_);
    std::fill_n(dots, width, 0.0);
    if (rows_ == 0) return;
    double* sums = scratch(blocks() * (width + 1) + width);
    fill(sums, 0, blocks() * width * sizeof(double));
    const auto kernel = wide_ ? product_block<std::uint64_t> : product_block<std::uint32_t>;
    kernel<<<static_cast<std::uint32_t>(blocks()), sweep_threads>>>(
        edges<float>(), {heavy_.get(), heavy_count_, sum_heavy(direction, width)}, seeds<float>().clamped,
        direction, product, static_cast<std::uint32_t>(width), alpha, sums);
    check(cudaGetLastError(), "starting a product");
    merge_columns(sums, width, dots);
}

void GraphRows::cg_step(graph::CgStep step) {
    const Current current(device_);
    std::fill_n(step.squares, step.width, 0.0);
    if (rows_ == 0) return;
    double *squares = step.squares, *changes = step.changes;
    step.rows = rows_;
    step.step = small(step.step, step.width);
    step.squares = scratch(blocks() * (step.width + 1) + step.width);
    step.changes = step.squares + blocks() * step.width;
    fill(step.squares, 0, blocks() * step.width * sizeof(double));
    step_block<<<static_cast<std::uint32_t>(blocks()), sweep_threads>>>(step);
    check(cudaGetLastError(), "starting a step");
    copy_out(changes, step.changes, blocks() * sizeof(double));
    merge_columns(step.squares, step.width, squares);
}

void GraphRows::cg_turn(const float* residual, const float* ratio, float* direction, std::size_t width) {
    const Current current(device_);
    if (rows_ == 0) return;
    constexpr std::size_t values_at_once = std::size_t{sweep_threads} * Part<float>::lanes;
    const std::size_t values = rows_ * width;
    turn_values<<<static_cast<std::uint32_t>((values + values_at_once - 1) / values_at_once),
                  sweep_threads>>>(residual, small(ratio, width), direction, values,
                                   static_cast<std::uint32_t>(width));
    check(cudaGetLastError(), "turning a direction");
    synchronize();  // the next call may come from a thread with another stream
}

}  // namespace pycurate::cuda
