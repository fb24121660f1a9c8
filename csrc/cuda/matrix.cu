// Rows in the memory of a device: how they come there, their norms and copies.
#include <cuda_runtime.h>

#include <algorithm>

#include "cuda/canonical.cuh"
#include "cuda/fused_similarity.h"
#include "cuda/rows.h"
#include "cuda/transfer.h"
#include "kernels/rowwise/similarity.h"

namespace pycurate::cuda {
namespace {

constexpr std::uint32_t warp_threads = 32;

__global__ void square_rows(Rows x, const std::uint32_t* numbers, std::uint32_t n, double* out) {
    const std::uint32_t i = (blockIdx.x * blockDim.x + threadIdx.x) / 2;
    const std::uint32_t threads = __ballot_sync(~0u, i < n);
    if (i >= n) return;
    const char* row = x.row(numbers != nullptr ? numbers[i] : i);
    const double square = canonical_dot(row, row, x.d, x.element, x.aligned, threads);
    if ((threadIdx.x & 1u) == 0) out[i] = square;
}

__global__ void gather_rows(Rows x, const std::uint32_t* numbers, std::uint32_t n, std::uint32_t row_bytes,
                            char* to) {
    const std::uint32_t i = blockIdx.x;
    if (i >= n) return;
    const char* row = x.row(numbers[i]);
    for (std::uint32_t j = threadIdx.x; j < row_bytes; j += blockDim.x)
        to[std::size_t{i} * row_bytes + j] = row[j];
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

constexpr std::uint32_t empty_slot = ~0u;

/// One warp a row: finds the slot of the rows with its bits in a table of row numbers, which keeps the
/// lowest.
__global__ void find_slots(Rows x, std::uint32_t n, std::uint32_t row_bytes, const std::uint64_t* hashes,
                           std::uint32_t* table, std::uint32_t slots, std::uint32_t* slot_of) {
    const std::uint32_t i = blockIdx.x * (blockDim.x / warp_threads) + threadIdx.x / warp_threads;
    const std::uint32_t lane = threadIdx.x % warp_threads;
    if (i >= n) return;
    const char* row = x.row(i);
    std::uint32_t slot = static_cast<std::uint32_t>(hashes[i]) & (slots - 1u);
    for (;; slot = (slot + 1) & (slots - 1u)) {
        std::uint32_t there = 0;
        if (lane == 0) there = atomicCAS(table + slot, empty_slot, i);
        there = __shfl_sync(~0u, there, 0);
        if (there == empty_slot) break;
        if (hashes[there] != hashes[i]) continue;
        const char* other = x.row(there);
        bool same = true;
        for (std::uint32_t j = lane; same && j < row_bytes; j += warp_threads) same = row[j] == other[j];
        if (!__all_sync(~0u, same)) continue;
        if (lane == 0 && there > i) atomicMin(table + slot, i);
        break;
    }
    if (lane == 0) slot_of[i] = slot;
}

__global__ void first_rows(const std::uint32_t* table, const std::uint32_t* slot_of, std::uint32_t n,
                           std::uint32_t* out) {
    const std::uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = table[slot_of[i]];
}

std::uint32_t blocks_for(std::size_t threads) { return static_cast<std::uint32_t>((threads + 255) / 256); }

}  // namespace

void start_squares(const Rows& x, const std::uint32_t* numbers, std::uint32_t n, double* out) {
    square_rows<<<blocks_for(2 * std::size_t{n}), 256>>>(x, numbers, n, out);
    check(cudaGetLastError(), "starting the norms");
}

Rows rows_of(const Matrix& x) {
    const auto at = reinterpret_cast<std::uintptr_t>(x.data) | static_cast<std::uintptr_t>(x.row_stride);
    return {static_cast<const char*>(x.data), x.row_stride, static_cast<std::uint32_t>(x.d), x.element,
            at % 16 == 0};
}

Matrix Matrix::upload(int device, rowwise::Matrix x, const std::int64_t* rows, std::size_t n, std::size_t d,
                      Element element) {
    const Current current(device);
    const std::size_t width = d * rowwise::element_bytes(element), pitch = (width + 15) / 16 * 16;
    Matrix result;
    result.own_ = Buffer<char>(n * pitch);
    upload_rows(result.own_.get(), pitch, static_cast<const char*>(x.data), x.row_stride, rows, width, n);
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
        start_squares(rows_of(*this), nullptr, static_cast<std::uint32_t>(n), out.get());
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
    std::uint32_t slots = 2;
    while (slots < 2 * n) slots *= 2;
    Buffer<std::uint32_t> table(slots), slot_of(n), first(n);
    fill(table.get(), 0xff, slots * sizeof(std::uint32_t));
    find_slots<<<blocks_for(warp_threads * n), 256>>>(rows_of(*this), static_cast<std::uint32_t>(n), width,
                                                      hashes.get(), table.get(), slots, slot_of.get());
    check(cudaGetLastError(), "looking for copies of rows");
    first_rows<<<blocks_for(n), 256>>>(table.get(), slot_of.get(), static_cast<std::uint32_t>(n),
                                       first.get());
    check(cudaGetLastError(), "looking for copies of rows");
    const std::vector<std::uint32_t> lowest = first.host();
    for (std::size_t i = 0; i < n; ++i)
        if (lowest[i] != i) copy_of[i] = lowest[i];
}

void Matrix::take(const std::int64_t* rows, std::size_t count, void* out) const {
    const Current current(device);
    const std::size_t width = d * rowwise::element_bytes(element);
    if (count == 0 || width == 0) return;
    const auto numbers = Buffer<std::uint32_t>::of(std::vector<std::uint32_t>(rows, rows + count));
    Buffer<char> part(count * width);
    gather_rows<<<static_cast<std::uint32_t>(count), 256>>>(rows_of(*this), numbers.get(),
                                                            static_cast<std::uint32_t>(count),
                                                            static_cast<std::uint32_t>(width), part.get());
    check(cudaGetLastError(), "gathering rows");
    copy_out(out, part.get(), part.size());
}

}  // namespace pycurate::cuda
