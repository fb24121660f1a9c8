// Principal coordinates of rows, and the clusters in them that rows are ordered by.
#include <cuda_runtime.h>

#include <cmath>

#include "cuda/rows.h"

namespace pycurate::cuda {
namespace {

using fused_similarity::fragile_square;

// Projections: 64 rows with 64 directions a block, 4 x 4 of them a thread.
constexpr std::uint32_t side = 64, slab = 32, project_threads = 256;

/// out[i][p] = canonical unit row i times direction p of `count`, in float32; rows by index.
__global__ void __launch_bounds__(project_threads)
    project_rows(Rows x, const std::uint32_t* numbers, const double* squares, std::uint32_t n,
                 const float* directions, std::uint32_t count, float* out) {
    __shared__ float of_rows[slab][side + 1], of_directions[slab][side + 1];
    __shared__ float factors[side];
    const std::uint32_t first_row = blockIdx.x * side, first = blockIdx.y * side, thread = threadIdx.x;
    if (thread < side) {
        const double square = first_row + thread < n ? squares[first_row + thread] : 0.0;
        factors[thread] = square >= fragile_square ? static_cast<float>(1.0 / std::sqrt(square)) : 0.0f;
    }
    float sums[4][4] = {};
    for (std::uint32_t begin = 0; begin < x.d; begin += slab) {
        __syncthreads();
        for (std::uint32_t at = thread; at < side * slab; at += project_threads) {
            const std::uint32_t r = at / slab, j = at % slab, i = first_row + r;
            const bool there = begin + j < x.d;
            of_rows[j][r] = there && i < n && factors[r] != 0.0f
                                ? any_element(x, x.row(numbers[i]), begin + j) * factors[r]
                                : 0.0f;
            of_directions[j][r] =
                there && first + r < count ? directions[std::size_t{first + r} * x.d + begin + j] : 0.0f;
        }
        __syncthreads();
        for (std::uint32_t j = 0; j < slab; ++j) {
            float a[4], b[4];
            for (std::uint32_t k = 0; k < 4; ++k)
                a[k] = of_rows[j][thread / 16 + 16 * k], b[k] = of_directions[j][thread % 16 + 16 * k];
            for (std::uint32_t r = 0; r < 4; ++r)
                for (std::uint32_t c = 0; c < 4; ++c) sums[r][c] = __fmaf_rn(a[r], b[c], sums[r][c]);
        }
    }
    for (std::uint32_t r = 0; r < 4; ++r)
        for (std::uint32_t c = 0; c < 4; ++c) {
            const std::uint32_t i = first_row + thread / 16 + 16 * r, p = first + thread % 16 + 16 * c;
            if (i < n && p < count) out[std::size_t{i} * count + p] = sums[r][c];
        }
}

constexpr std::uint32_t centroids_at_a_time = 128;

/// The nearest centroid of each projected row, by dot product; it only orders rows.
__global__ void assign_rows(const float* projected, std::uint32_t n, std::uint32_t p, const float* centroids,
                            std::uint32_t count, std::uint32_t coordinates, std::uint32_t* out) {
    __shared__ float part[centroids_at_a_time][most_cluster_coordinates];
    const std::uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    float mine[most_cluster_coordinates];
    for (std::uint32_t j = 0; j < most_cluster_coordinates; ++j)
        mine[j] = i < n && j < coordinates ? projected[std::size_t{i} * p + j] : 0.0f;
    float best = -2.0f;
    std::uint32_t at = 0;
    for (std::uint32_t begin = 0; begin < count; begin += centroids_at_a_time) {
        __syncthreads();
        for (std::uint32_t k = threadIdx.x; k < centroids_at_a_time * most_cluster_coordinates;
             k += blockDim.x) {
            const std::uint32_t c = k / most_cluster_coordinates, j = k % most_cluster_coordinates;
            part[c][j] = begin + c < count && j < coordinates
                             ? centroids[std::size_t{begin + c} * coordinates + j]
                             : 0.0f;
        }
        __syncthreads();
        for (std::uint32_t c = 0; c < centroids_at_a_time && begin + c < count; ++c) {
            float dot = 0.0f;
#pragma unroll
            for (std::uint32_t j = 0; j < most_cluster_coordinates; ++j)
                dot = __fmaf_rn(mine[j], part[c][j], dot);
            if (dot > best) best = dot, at = begin + c;
        }
    }
    if (i < n) out[i] = at;
}

std::uint32_t blocks_for(std::size_t threads) { return static_cast<std::uint32_t>((threads + 255) / 256); }

}  // namespace

void start_projection(const Rows& x, const std::uint32_t* numbers, const double* squares, std::uint32_t n,
                      const float* directions, std::uint32_t count, float* out) {
    project_rows<<<dim3((n + side - 1) / side, (count + side - 1) / side), project_threads>>>(
        x, numbers, squares, n, directions, count, out);
    check(cudaGetLastError(), "projecting rows");
}

void start_assignment(const float* projected, std::uint32_t n, std::uint32_t p, const float* centroids,
                      std::uint32_t count, std::uint32_t coordinates, std::uint32_t* out) {
    assign_rows<<<blocks_for(n), 256>>>(projected, n, p, centroids, count, coordinates, out);
    check(cudaGetLastError(), "ordering rows");
}

std::vector<float> Matrix::project(const std::int64_t* rows, std::size_t count, const float* directions,
                                   std::size_t p) const {
    if (count == 0 || p == 0) return {};
    const Current current(device);
    const auto numbers = Buffer<std::uint32_t>::of(std::vector<std::uint32_t>(rows, rows + count));
    const auto basis = Buffer<float>::of(directions, p * d);
    Buffer<double> squares(count);
    Buffer<float> out(count * p);
    const auto n = static_cast<std::uint32_t>(count);
    start_squares(rows_of(*this), numbers.get(), n, squares.get());
    start_projection(rows_of(*this), numbers.get(), squares.get(), n, basis.get(),
                     static_cast<std::uint32_t>(p), out.get());
    return out.host();
}

std::vector<std::uint32_t> nearest_centroids(int device, const float* rows, std::size_t n, std::size_t p,
                                             const float* centroids, std::size_t count) {
    if (n == 0) return {};
    const Current current(device);
    const auto of_rows = Buffer<float>::of(rows, n * p),
               of_centroids = Buffer<float>::of(centroids, count * p);
    Buffer<std::uint32_t> out(n);
    const auto coordinates = static_cast<std::uint32_t>(p);
    start_assignment(of_rows.get(), static_cast<std::uint32_t>(n), coordinates, of_centroids.get(),
                     static_cast<std::uint32_t>(count), coordinates, out.get());
    return out.host();
}

}  // namespace pycurate::cuda
