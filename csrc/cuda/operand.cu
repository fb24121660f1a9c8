// Rows on a device, and what screening them needs.
#include <cuda_runtime.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "cuda/canonical.cuh"
#include "cuda/fused_similarity.h"
#include "cuda/layout.h"
#include "cuda/rows.h"
#include "kernels/fused_similarity/shares.h"
#include "kernels/rowwise/similarity.h"

namespace pycurate::cuda {
namespace {

using namespace fused_similarity;

constexpr std::uint32_t warp_threads = 32;

/// What the quantising kernel is told beside the rows.
struct Quantising {
    std::uint32_t pitch, positions, n;
    std::uint32_t prefix_chunks, rotated_stages;
    std::uint32_t chunks_of_stage[most_stages];  // of rotated coordinates
    float scale, prefix_scale;
    double unit, prefix_unit, lost, prefix_lost;
    const float* projected;  // (n, 64 prefix_chunks) by index
    const std::uint32_t* order;
    Metric metric;
};

__device__ float warp_sum(float x) {
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
    return x;
}

/// Hadamard transform of `width` numbers in shared memory by a warp, orthonormal.
__device__ void transform(float* x, std::uint32_t width) {
    const std::uint32_t lane = threadIdx.x % warp_threads;
    for (std::uint32_t half = 1; half < width; half *= 2) {
        __syncwarp();
        for (std::uint32_t k = lane; k < width / 2; k += warp_threads) {
            const std::uint32_t i = k / half * 2 * half + k % half;
            const float low = x[i], high = x[i + half];
            x[i] = low + high, x[i + half] = low - high;
        }
    }
    const auto orthonormal = static_cast<float>(1.0 / std::sqrt(static_cast<double>(width)));
    __syncwarp();
    for (std::uint32_t j = lane; j < width; j += warp_threads) x[j] *= orthonormal;
    __syncwarp();
}

/// Rounds 64 numbers to bytes; adds this lane's part of what they and their errors square to.
__device__ void round_chunk(const float* x, std::uint32_t count, float scale, std::int8_t* out,
                            RowSums& own) {
    const std::uint32_t lane = threadIdx.x % warp_threads;
    std::int8_t rounded[2];
    for (std::uint32_t k = 0; k < 2; ++k) {
        const float value = 2 * lane + k < count ? x[2 * lane + k] : 0.0f;
        const float whole = fminf(fmaxf(rintf(value / scale), -127.0f), 127.0f);
        const float error = __fmaf_rn(-scale, whole, value);
        own.squares += value * value, own.errors += error * error;
        rounded[k] = static_cast<std::int8_t>(whole);
    }
    reinterpret_cast<char2*>(out)[lane] = make_char2(rounded[0], rounded[1]);
}

/// One warp a position: the row as a unit vector is rotated in shared memory, rounded to bytes, and what that
/// lost becomes its share at each stage; before it the same with its principal coordinates.
__global__ void quantise_rows(Rows x, const std::uint32_t* numbers, const double* squares, const float* signs,
                              Quantising q, std::int8_t* out, std::int32_t* shares, float* factors,
                              float* biases) {
    extern __shared__ float work[];
    const std::uint32_t lane = threadIdx.x % warp_threads;
    const std::uint32_t position = blockIdx.x * (blockDim.x / warp_threads) + threadIdx.x / warp_threads;
    const std::uint32_t room = max(x.d, chunk_coordinates);
    float* v = work + threadIdx.x / warp_threads * room;
    if (position >= q.positions) return;
    const bool there = position < q.n;
    const double square = there ? squares[position] : 0.0;
    std::int8_t* bytes = out + static_cast<std::size_t>(position) * q.pitch;
    const auto set_share = [&](std::uint32_t stage, const RowSums& own, std::uint32_t coordinates, bool whole,
                               double unit, double lost) {
        const RowSums sums{warp_sum(own.squares), warp_sum(own.errors)};
        if (lane != 0) return;
        std::int32_t units = in_units(share_of(sums, coordinates, whole, lost), unit, passing_share);
        if (!(square >= fragile_square)) units = passing_share;
        shares[static_cast<std::size_t>(stage) * q.positions + position] = there ? units : -passing_share;
    };
    RowSums prefix{0.0f, 0.0f};
    for (std::uint32_t chunk = 0; chunk < q.prefix_chunks; ++chunk) {
        const std::size_t from = there ? (std::size_t{q.order[position]} * q.prefix_chunks + chunk) : 0;
        __syncwarp();
        for (std::uint32_t j = lane; j < chunk_coordinates; j += warp_threads)
            v[j] = there ? q.projected[from * chunk_coordinates + j] * signs[j] : 0.0f;
        transform(v, chunk_coordinates);
        round_chunk(v, chunk_coordinates, q.prefix_scale, bytes + chunk * chunk_coordinates, prefix);
        set_share(chunk, prefix, (chunk + 1) * chunk_coordinates, false, q.prefix_unit, q.prefix_lost);
    }
    // A row shorter than float32 can invert counts as 0 here: fragile, or of no length for other metrics.
    const float factor = square >= fragile_square ? static_cast<float>(1.0 / std::sqrt(square)) : 0.0f;
    const char* row = there ? x.row(numbers[position]) : nullptr;
    __syncwarp();
    for (std::uint32_t j = lane; j < x.d; j += warp_threads)
        v[j] = factor != 0.0f ? any_element(x, row, j) * factor : 0.0f;
    for (std::size_t t = 0; t < transforms_of(x.d); ++t) {
        __syncwarp();
        for (std::uint32_t j = lane; j < x.d; j += warp_threads) v[j] *= signs[t * x.d + j];
        __syncwarp();
        transform(v + transform_begin(x.d, t), static_cast<std::uint32_t>(transform_width(x.d)));
    }
    RowSums own{0.0f, 0.0f};
    std::uint32_t stage = 0;
    for (std::uint32_t chunk = 0; stage < q.rotated_stages; ++chunk) {
        const std::uint32_t begin = chunk * chunk_coordinates;
        round_chunk(v + begin, x.d - begin, q.scale, bytes + q.prefix_chunks * chunk_coordinates + begin,
                    own);
        if (chunk + 1 != q.chunks_of_stage[stage]) continue;
        const bool last = stage + 1 == q.rotated_stages;
        set_share(q.prefix_chunks + stage, own, last ? x.d : begin + chunk_coordinates, last, q.unit, q.lost);
        ++stage;
    }
    if (lane == 0) {
        factors[position] = there ? factor_of(q.metric, square) : 0.0f;
        biases[position] = there ? bias_of(q.metric, square, x.d) : 0.0f;
    }
}

template <class T>
__global__ void gather(const T* from, const std::uint32_t* places, std::uint32_t n, T* to) {
    const std::uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) to[i] = from[places[i]];
}

std::uint32_t blocks_for(std::size_t threads) { return static_cast<std::uint32_t>((threads + 255) / 256); }

}  // namespace

Screening::Screening(std::vector<float> projection_, std::size_t p_, std::size_t d_,
                     std::vector<float> centroids_, std::size_t count, std::size_t coordinates, double norm_)
    : projection(std::move(projection_)),
      centroids(std::move(centroids_)),
      p(p_),
      d(d_),
      centroid_count(count),
      cluster_coordinates(coordinates),
      norm(norm_),
      defect(defect_of(projection.data(), p_, d_)) {}

std::size_t Operand::positions() const noexcept { return (n + tile_rows - 1) / tile_rows * tile_rows; }

std::size_t Operand::bytes() const noexcept {
    return quantised.size() + shares.size() * 4 + positions() * 24 + rows.size() * 8;
}

namespace {

/// Rows by index in the order of their clusters: index by position.
std::vector<std::uint32_t> cluster_order(const std::vector<std::uint32_t>& clusters, std::size_t count) {
    std::vector<std::uint32_t> begin(count + 1, 0), order(clusters.size());
    for (const std::uint32_t cluster : clusters) ++begin[cluster + 1];
    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    for (std::uint32_t i = 0; i < clusters.size(); ++i) order[begin[clusters[i]]++] = i;
    return order;
}

}  // namespace

std::unique_ptr<Operand> Operand::prepare(const Matrix& x, const std::int64_t* rows, std::size_t n,
                                          Metric metric, Precision precision, const Screening* screening) {
    const Current current(x.device);
    auto result = std::make_unique<Operand>();
    Operand& o = *result;
    o.x = &x, o.n = n, o.d = x.d, o.metric = metric;
    o.rows.resize(n);
    if (rows != nullptr)
        std::copy_n(rows, n, o.rows.data());
    else
        std::iota(o.rows.begin(), o.rows.end(), std::int64_t{0});
    const std::size_t positions = o.positions();
    o.row_numbers = Buffer<std::uint32_t>::of(std::vector<std::uint32_t>(o.rows.begin(), o.rows.end()));
    o.squares = Buffer<double>(positions);
    o.squares.zero();
    o.screened = precision == Precision::exact && x.d > 0 && x.d <= most_coordinates;
    const auto chunks = static_cast<std::uint32_t>((x.d + chunk_coordinates - 1) / chunk_coordinates);
    const bool prefixed =
        screening != nullptr && o.screened && metric == Metric::cosine && screening->d == x.d;
    o.prefix_chunks = prefixed ? screening->p / chunk_coordinates : 0;
    o.pitch = (chunks + o.prefix_chunks) * chunk_coordinates;
    o.factors = Buffer<float>(positions), o.biases = Buffer<float>(positions);
    std::vector<std::uint32_t> order(n);
    std::iota(order.begin(), order.end(), 0u);
    const Rows device_rows = rows_of(x);
    const auto count = static_cast<std::uint32_t>(n);
    if (n > 0) {
        start_squares(device_rows, o.row_numbers.get(), count, o.squares.get());
    }
    Quantising q{};
    Buffer<float> projected;
    if (prefixed && n > 0) {
        const auto directions = static_cast<std::uint32_t>(screening->p);
        const auto clusters = static_cast<std::uint32_t>(screening->centroid_count);
        const auto basis = Buffer<float>::of(screening->projection);
        const auto centroids = Buffer<float>::of(screening->centroids);
        projected = Buffer<float>(n * directions);
        start_projection(device_rows, o.row_numbers.get(), o.squares.get(), count, basis.get(), directions,
                         projected.get());
        Buffer<std::uint32_t> assigned(n);
        start_assignment(projected.get(), count, directions, centroids.get(), clusters,
                         static_cast<std::uint32_t>(screening->cluster_coordinates), assigned.get());
        if (clusters > 1) order = cluster_order(assigned.host(), clusters);
        q.projected = projected.get();
        const double scale =
            static_cast<double>(static_cast<float>(scale_of(chunk_coordinates, screening->norm)));
        q.prefix_scale = static_cast<float>(scale);
        q.prefix_unit = o.prefix_unit = scale * scale;
        o.prefix_extra = extra_of(x.d) + 2.0 * screening->defect + screening->defect * screening->defect;
        // A projected coordinate rounds d times, of a sum below 1 in magnitude, which makes sqrt(coordinates)
        // times that of a vector.
        q.prefix_lost = gamma(rotation_roundings) +
                        gamma(static_cast<double>(x.d)) * std::sqrt(static_cast<double>(screening->p));
    }
    o.order = Buffer<std::uint32_t>::of(order);
    if (n == 0) return result;
    if (prefixed) {
        Buffer<std::uint32_t> numbers(n);
        Buffer<double> squares(positions);
        squares.zero();
        gather<<<blocks_for(n), 256>>>(o.row_numbers.get(), o.order.get(), count, numbers.get());
        gather<<<blocks_for(n), 256>>>(o.squares.get(), o.order.get(), count, squares.get());
        check(cudaGetLastError(), "ordering rows");
        synchronize();
        o.row_numbers = std::move(numbers), o.squares = std::move(squares);
    }
    if (!o.screened) {
        synchronize();
        return result;
    }
    const std::vector<std::uint32_t> stages = stage_chunks(chunks);
    std::copy(stages.begin(), stages.end(), q.chunks_of_stage);
    q.pitch = static_cast<std::uint32_t>(o.pitch), q.positions = static_cast<std::uint32_t>(positions);
    q.n = count, q.prefix_chunks = static_cast<std::uint32_t>(o.prefix_chunks);
    q.rotated_stages = static_cast<std::uint32_t>(stages.size());
    q.scale = static_cast<float>(float_scale_of(x.d));
    q.unit = unit_of(x.d), q.lost = gamma(rotation_roundings);
    q.order = o.order.get(), q.metric = metric;
    o.quantised = Buffer<std::int8_t>(positions * o.pitch);
    o.shares = Buffer<std::int32_t>(positions * (stages.size() + o.prefix_chunks));
    const auto signs = Buffer<float>::of(rotation_signs(std::max<std::size_t>(x.d, chunk_coordinates)));
    const std::size_t row_bytes = std::max<std::size_t>(x.d, chunk_coordinates) * sizeof(float);
    const auto warps = static_cast<std::uint32_t>(std::clamp<std::size_t>(48 * 1024 / row_bytes, 1, 8));
    check(cudaFuncSetAttribute(quantise_rows, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(warps * row_bytes)),
          "asking for shared memory");
    quantise_rows<<<static_cast<std::uint32_t>((positions + warps - 1) / warps), warps * warp_threads,
                    warps * row_bytes>>>(device_rows, o.row_numbers.get(), o.squares.get(), signs.get(), q,
                                         o.quantised.get(), o.shares.get(), o.factors.get(), o.biases.get());
    check(cudaGetLastError(), "starting to quantise rows");
    synchronize();
    return result;
}

}  // namespace pycurate::cuda
