// Rows on a device, and what screening them needs.
#include <cuda_runtime.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <unordered_map>

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

__global__ void square_rows(Rows x, const std::uint32_t* numbers, std::uint32_t n, double* out) {
    const std::uint32_t i = (blockIdx.x * blockDim.x + threadIdx.x) / 2;
    const std::uint32_t threads = __ballot_sync(~0u, i < n);
    if (i >= n) return;
    const char* row = x.row(numbers != nullptr ? numbers[i] : i);
    const double square = canonical_dot(row, row, x.d, x.element, x.aligned, threads);
    if ((threadIdx.x & 1u) == 0) out[i] = square;
}

/// What the quantising kernel is told beside the rows.
struct Quantising {
    std::uint32_t pitch, positions, n, stages;
    std::uint32_t chunks_of_stage[most_stages];
    float scale;
    double unit, lost;
    Metric metric;
};

__device__ float warp_sum(float x) {
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0u, x, step);
    return x;
}

__device__ float any_element(const Rows& x, const char* row, std::uint32_t j) {
    switch (x.element) {
        case Element::float32: return element_at<Element::float32>(row, j);
        case Element::float16: return element_at<Element::float16>(row, j);
        case Element::bfloat16: return element_at<Element::bfloat16>(row, j);
        case Element::int8: break;
    }
    return element_at<Element::int8>(row, j);
}

/// One warp a position: the row as a unit vector is rotated in shared memory, rounded to bytes, and what that
/// lost becomes its share at each stage.
__global__ void quantise_rows(Rows x, const std::uint32_t* numbers, const double* squares, const float* signs,
                              Quantising q, std::int8_t* out, std::int32_t* shares, float* factors,
                              float* biases) {
    extern __shared__ float work[];
    const std::uint32_t lane = threadIdx.x % warp_threads;
    const std::uint32_t position = blockIdx.x * (blockDim.x / warp_threads) + threadIdx.x / warp_threads;
    float* v = work + threadIdx.x / warp_threads * x.d;
    if (position >= q.positions) return;
    const double square = position < q.n ? squares[position] : 0.0;
    // A row shorter than float32 can invert counts as 0 here: fragile, or of no length for other metrics.
    const float factor = square >= fragile_square ? static_cast<float>(1.0 / std::sqrt(square)) : 0.0f;
    const char* row = position < q.n ? x.row(numbers[position]) : nullptr;
    for (std::uint32_t j = lane; j < x.d; j += warp_threads)
        v[j] = factor != 0.0f ? any_element(x, row, j) * factor : 0.0f;
    const std::size_t width = transform_width(x.d);
    const float orthonormal = static_cast<float>(1.0 / std::sqrt(static_cast<double>(width)));
    for (std::size_t t = 0; t < transforms_of(x.d); ++t) {
        __syncwarp();
        for (std::uint32_t j = lane; j < x.d; j += warp_threads) v[j] *= signs[t * x.d + j];
        float* part = v + transform_begin(x.d, t);
        for (std::uint32_t half = 1; half < width; half *= 2) {
            __syncwarp();
            for (std::uint32_t k = lane; k < width / 2; k += warp_threads) {
                const std::uint32_t i = k / half * 2 * half + k % half;
                const float low = part[i], high = part[i + half];
                part[i] = low + high, part[i + half] = low - high;
            }
        }
        __syncwarp();
        for (std::uint32_t j = lane; j < width; j += warp_threads) part[j] *= orthonormal;
    }
    __syncwarp();
    float own_squares = 0, own_errors = 0;
    std::uint32_t stage = 0;
    std::int8_t* bytes = out + static_cast<std::size_t>(position) * q.pitch;
    for (std::uint32_t chunk = 0; chunk < q.pitch / chunk_coordinates; ++chunk) {
        std::int8_t rounded[2];
        for (std::uint32_t k = 0; k < 2; ++k) {
            const std::uint32_t j = chunk * chunk_coordinates + 2 * lane + k;
            const float value = j < x.d ? v[j] : 0.0f;
            const float whole = fminf(fmaxf(rintf(value / q.scale), -127.0f), 127.0f);
            const float error = __fmaf_rn(-q.scale, whole, value);
            own_squares += value * value, own_errors += error * error;
            rounded[k] = static_cast<std::int8_t>(whole);
        }
        reinterpret_cast<char2*>(bytes)[chunk * warp_threads + lane] = make_char2(rounded[0], rounded[1]);
        if (chunk + 1 != q.chunks_of_stage[stage]) continue;
        const RowSums sums{warp_sum(own_squares), warp_sum(own_errors)};
        if (lane == 0) {
            const bool last = stage + 1 == q.stages;
            const double share =
                share_of(sums, last ? x.d : (chunk + 1) * chunk_coordinates, last, q.lost);
            std::int32_t units = in_units(share, q.unit, passing_share);
            if (!(square >= fragile_square)) units = passing_share;
            shares[static_cast<std::size_t>(stage) * q.positions + position] =
                position < q.n ? units : -passing_share;
        }
        ++stage;
    }
    if (lane == 0) {
        factors[position] = position < q.n ? factor_of(q.metric, square) : 0.0f;
        biases[position] = position < q.n ? bias_of(q.metric, square, x.d) : 0.0f;
    }
}

__global__ void hash_rows(Rows x, std::uint32_t n, std::uint32_t row_bytes, std::uint64_t* out) {
    const std::uint32_t i = blockIdx.x * (blockDim.x / warp_threads) + threadIdx.x / warp_threads;
    const std::uint32_t lane = threadIdx.x % warp_threads;
    if (i >= n) return;
    const char* row = x.row(i);
    std::uint64_t hash = row_bytes + 0x9e3779b97f4a7c15u * (lane + 1);
    for (std::uint32_t j = lane * 4; j < row_bytes; j += warp_threads * 4) {
        std::uint32_t word = 0;
        for (std::uint32_t k = 0; k < 4 && j + k < row_bytes; ++k)
            word |= static_cast<std::uint32_t>(static_cast<std::uint8_t>(row[j + k])) << (8 * k);
        hash = (hash ^ word) * 0xc2b2ae3d27d4eb4fu;
        hash ^= hash >> 29;
    }
    hash *= 0x165667b19e3779f9u;
    for (int step = 16; step > 0; step /= 2) hash ^= __shfl_xor_sync(~0u, hash, step);
    if (lane == 0) out[i] = hash ^ hash >> 32;
}

__global__ void compare_rows(Rows x, const std::uint32_t* left, const std::uint32_t* right, std::uint32_t n,
                             std::uint32_t row_bytes, std::uint8_t* equal) {
    const std::uint32_t i = blockIdx.x * (blockDim.x / warp_threads) + threadIdx.x / warp_threads;
    const std::uint32_t lane = threadIdx.x % warp_threads;
    if (i >= n) return;
    const char *a = x.row(left[i]), *b = x.row(right[i]);
    bool same = true;
    for (std::uint32_t j = lane; j < row_bytes; j += warp_threads) same = same && a[j] == b[j];
    same = __all_sync(~0u, same);
    if (lane == 0) equal[i] = same;
}

std::uint32_t blocks_for(std::size_t threads) { return static_cast<std::uint32_t>((threads + 255) / 256); }

}  // namespace

Rows rows_of(const Matrix& x) {
    const auto at = reinterpret_cast<std::uintptr_t>(x.data) | static_cast<std::uintptr_t>(x.row_stride);
    return {static_cast<const char*>(x.data), x.row_stride, static_cast<std::uint32_t>(x.d), x.element,
            at % 16 == 0};
}

Matrix Matrix::upload(int device, rowwise::Matrix x, std::size_t n, std::size_t d, Element element) {
    const Current current(device);
    const std::size_t width = d * rowwise::element_bytes(element), pitch = (width + 15) / 16 * 16;
    Matrix result;
    result.own_ = Buffer<char>(n * pitch);
    if (n > 0 && width > 0) {
        const char* from = static_cast<const char*>(x.data);
        if (x.row_stride == static_cast<std::ptrdiff_t>(width) && width == pitch)
            copy_in(result.own_.get(), from, n * width);
        else if (x.row_stride >= static_cast<std::ptrdiff_t>(width))
            check(cudaMemcpy2D(result.own_.get(), pitch, from, static_cast<std::size_t>(x.row_stride), width,
                               n, cudaMemcpyHostToDevice),
                  "copying rows to the device");
        else
            for (std::size_t i = 0; i < n; ++i)
                copy_in(result.own_.get() + i * pitch,
                        from + static_cast<std::ptrdiff_t>(i) * x.row_stride, width);
    }
    result.device = device, result.data = result.own_.get();
    result.row_stride = static_cast<std::ptrdiff_t>(pitch);
    result.n = n, result.d = d, result.element = element;
    return result;
}

Matrix Matrix::lend(int device, const void* x, std::ptrdiff_t row_stride, std::size_t n, std::size_t d,
                    Element element) {
    Matrix result;
    result.device = device, result.data = x, result.row_stride = row_stride;
    result.n = n, result.d = d, result.element = element;
    return result;
}

std::vector<double> Matrix::squares() const {
    const Current current(device);
    Buffer<double> out(n);
    if (n > 0) {
        square_rows<<<blocks_for(2 * n), 256>>>(rows_of(*this), nullptr, static_cast<std::uint32_t>(n),
                                                out.get());
        check(cudaGetLastError(), "starting the norms");
    }
    return out.host();
}

void Matrix::find_copies(std::int64_t* copy_of) const {
    const Current current(device);
    std::fill_n(copy_of, n, std::int64_t{-1});
    if (n == 0) return;
    const auto width = static_cast<std::uint32_t>(d * rowwise::element_bytes(element));
    Buffer<std::uint64_t> hashes(n);
    hash_rows<<<blocks_for(warp_threads * n), 256>>>(rows_of(*this), static_cast<std::uint32_t>(n), width,
                                                     hashes.get());
    check(cudaGetLastError(), "starting the hashes of rows");
    const std::vector<std::uint64_t> keys = hashes.host();
    std::vector<std::uint32_t> order(n);
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::uint32_t i, std::uint32_t j) { return keys[i] < keys[j]; });
    // Rows of one hash are compared with the first of them; those that differ, with the first of what is
    // left.
    std::vector<std::vector<std::uint32_t>> groups;
    for (std::size_t begin = 0, end; begin < n; begin = end) {
        for (end = begin + 1; end < n && keys[order[end]] == keys[order[begin]];) ++end;
        if (end - begin > 1) groups.emplace_back(order.begin() + static_cast<std::ptrdiff_t>(begin),
                                                 order.begin() + static_cast<std::ptrdiff_t>(end));
    }
    while (!groups.empty()) {
        std::vector<std::uint32_t> left, right;
        for (const auto& group : groups)
            for (std::size_t i = 1; i < group.size(); ++i) left.push_back(group[0]), right.push_back(group[i]);
        const auto count = static_cast<std::uint32_t>(left.size());
        const auto device_left = Buffer<std::uint32_t>::of(left), device_right = Buffer<std::uint32_t>::of(right);
        Buffer<std::uint8_t> equal(count);
        compare_rows<<<blocks_for(std::size_t{warp_threads} * count), 256>>>(
            rows_of(*this), device_left.get(), device_right.get(), count, width, equal.get());
        check(cudaGetLastError(), "comparing rows");
        const std::vector<std::uint8_t> same = equal.host();
        std::vector<std::vector<std::uint32_t>> others;
        std::size_t at = 0;
        for (const auto& group : groups) {
            std::vector<std::uint32_t> rest;
            for (std::size_t i = 1; i < group.size(); ++i, ++at) {
                if (same[at])
                    copy_of[group[i]] = group[0];
                else
                    rest.push_back(group[i]);
            }
            if (rest.size() > 1) others.push_back(std::move(rest));
        }
        groups = std::move(others);
    }
}

std::size_t Operand::positions() const noexcept { return (n + tile_rows - 1) / tile_rows * tile_rows; }

std::size_t Operand::bytes() const noexcept {
    return quantised.size() + shares.size() * 4 + positions() * 24 + rows.size() * 8;
}

std::unique_ptr<Operand> Operand::prepare(const Matrix& x, const std::int64_t* rows, std::size_t n,
                                          Metric metric, Precision precision) {
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
    std::vector<std::uint32_t> numbers(o.rows.begin(), o.rows.end()), order(n);
    std::iota(order.begin(), order.end(), 0u);
    o.row_numbers = Buffer<std::uint32_t>::of(numbers);
    o.order = Buffer<std::uint32_t>::of(order);
    o.squares = Buffer<double>(positions);
    o.squares.zero();
    o.screened = precision == Precision::exact && x.d > 0 && x.d <= most_coordinates;
    const auto chunks = static_cast<std::uint32_t>((x.d + chunk_coordinates - 1) / chunk_coordinates);
    o.pitch = std::size_t{chunks} * chunk_coordinates;
    o.factors = Buffer<float>(positions), o.biases = Buffer<float>(positions);
    if (n == 0) return result;
    const Rows device_rows = rows_of(x);
    square_rows<<<blocks_for(2 * n), 256>>>(device_rows, o.row_numbers.get(), static_cast<std::uint32_t>(n),
                                            o.squares.get());
    check(cudaGetLastError(), "starting the norms");
    if (!o.screened) {
        synchronize();
        return result;
    }
    Quantising q{};
    const std::vector<std::uint32_t> stages = stage_chunks(chunks);
    std::copy(stages.begin(), stages.end(), q.chunks_of_stage);
    o.stages = stages.size();
    q.pitch = static_cast<std::uint32_t>(o.pitch), q.positions = static_cast<std::uint32_t>(positions);
    q.n = static_cast<std::uint32_t>(n), q.stages = static_cast<std::uint32_t>(stages.size());
    const double scale = scale_of(x.d, 1.0);
    q.scale = static_cast<float>(scale);
    q.unit = unit_of(x.d), q.lost = gamma(rotation_roundings), q.metric = metric;
    o.quantised = Buffer<std::int8_t>(positions * o.pitch);
    o.shares = Buffer<std::int32_t>(positions * stages.size());
    const auto signs = Buffer<float>::of(rotation_signs(x.d));
    const std::size_t row_bytes = x.d * sizeof(float);
    const auto warps = static_cast<std::uint32_t>(std::clamp<std::size_t>(48 * 1024 / row_bytes, 1, 8));
    check(cudaFuncSetAttribute(quantise_rows, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(std::max<std::size_t>(warps * row_bytes, 1024))),
          "asking for shared memory");
    quantise_rows<<<static_cast<std::uint32_t>((positions + warps - 1) / warps), warps * warp_threads,
                    warps * row_bytes>>>(device_rows, o.row_numbers.get(), o.squares.get(), signs.get(), q,
                                         o.quantised.get(), o.shares.get(), o.factors.get(), o.biases.get());
    check(cudaGetLastError(), "starting to quantise rows");
    synchronize();
    return result;
}

}  // namespace pycurate::cuda
