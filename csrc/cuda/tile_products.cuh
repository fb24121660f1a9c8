#pragma once
// Products of bytes of a tile by tensor cores, and how rows come to them. Included by the join's kernel
// alone.
#include "cuda/join.h"

namespace pycurate::cuda {
namespace {

constexpr std::uint32_t block_threads = 256, warps = block_warps;
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PYCURATE_WARPGROUPS 1
#else
#define PYCURATE_WARPGROUPS 0
#endif
// What a warp has of a tile, in parts of 16 x 8: 16 x 128 where four warps multiply together, else 64 x 32.
constexpr std::uint32_t row_parts = PYCURATE_WARPGROUPS ? 1 : 4, col_parts = PYCURATE_WARPGROUPS ? 16 : 4;
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

static_assert(tile_rows * row_segments == 2 * block_threads);

/// Starts to copy a chunk of a tile's rows: two segments a thread, of rows 64 apart. `tile` and `chunk` are
/// the same in all threads of a warp, which keeps them and the addresses out of the registers of threads.
template <bool near>
__device__ void load_chunk(std::int8_t* to, const SideView& side, std::uint32_t pitch, std::uint32_t tile,
                           std::uint32_t chunk) {
    const std::uint32_t row = threadIdx.x / row_segments, segment = threadIdx.x % row_segments;
    const std::uint32_t place = shared_address(to) + place_in_chunk(row, segment);
    const std::int8_t* tile_begin =
        side.quantised + static_cast<std::size_t>(tile) * tile_rows * pitch + chunk * chunk_coordinates;
    const std::int8_t* from = tile_begin + (row * pitch + segment * segment_bytes);
    const std::int8_t* second = tile_begin + ((row + tile_rows / 2) * pitch + segment * segment_bytes);
    if constexpr (near) {
        copy_near(place, from);
        copy_near(place + chunk_bytes / 2, second);
    } else {
        copy_far(place, from);
        copy_far(place + chunk_bytes / 2, second);
    }
}
/// The same number for all threads of a warp, as the compiler then knows.
__device__ std::uint32_t same_in_warp(std::uint32_t x) { return __shfl_sync(~0u, x, 0); }

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
        multiply_add(sums.of[0], describe(shared_address(a) + rows + step),
                     describe(shared_address(b) + step));
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

}  // namespace
}  // namespace pycurate::cuda
