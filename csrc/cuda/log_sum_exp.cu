// Sums of exponentials over rows and columns. Every score is canonical, sums are float64 over blocks of
// columns, merged in order, so that the same device gives the same bits each time.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cuda/rows.h"
#include "kernels/rowwise/similarity.h"

namespace pycurate::cuda {
namespace {

// A half-warp has 8 x 8 pairs, each of its threads one of the 16 lanes of their sums; a block of 16
// half-warps has 32 x 32.
constexpr std::uint32_t side = 32, part = 8, block_threads = 256, half_warp = 16;
// Coordinates of a block's rows that lie in shared memory at a time.
constexpr std::uint32_t slab = 64;
constexpr std::uint32_t block_cols = 4096;

struct Partial {
    double most, sum;  // of exp(term - most)
};

__device__ Partial merged(Partial x, Partial y) {
    if (y.sum == 0.0) return x;
    if (x.sum == 0.0) return y;
    const double most = fmax(x.most, y.most);
    return {most, x.sum * exp(x.most - most) + y.sum * exp(y.most - most)};
}

__device__ float widened(const Rows& x, std::uint32_t row, std::uint32_t j) {
    if (j >= x.d) return 0.0f;
    const char* at = x.row(row);
    switch (x.element) {
        case Element::float32: return element_at<Element::float32>(at, j);
        case Element::float16: return element_at<Element::float16>(at, j);
        case Element::bfloat16: return element_at<Element::bfloat16>(at, j);
        case Element::int8: break;
    }
    return element_at<Element::int8>(at, j);
}

struct Side {
    Rows rows;
    const std::uint32_t* numbers;
    const double* squares;
    std::uint32_t n;
};

/// Partial sums of 32 rows over `block_cols` columns: out[column block][row].
template <bool integers>
__global__ void __launch_bounds__(block_threads)
    sum_block(Side a, Side b, Metric metric, double scale, Partial* out) {
    __shared__ float of_a[side][slab + 1], of_b[side][slab + 1];
    __shared__ Partial partial[side][side];
    const std::uint32_t thread = threadIdx.x, lane = thread % half_warp, half = thread / half_warp;
    const std::uint32_t row0 = half / 4 * part, col0 = half % 4 * part;
    const std::uint32_t first_row = blockIdx.x * side;
    const std::uint32_t first_col = blockIdx.y * block_cols;
    const std::uint32_t end_col = min(first_col + block_cols, b.n);
    Partial mine{0.0, 0.0};  // of row thread / 8, for the first of its eight threads
    for (std::uint32_t col = first_col; col < end_col; col += side) {
        float lanes[part][part] = {};
        long long whole[integers ? part : 1][integers ? part : 1] = {};
        for (std::uint32_t begin = 0; begin < a.rows.d; begin += slab) {
            __syncthreads();
            for (std::uint32_t at = thread; at < side * slab; at += block_threads) {
                const std::uint32_t r = at / slab, j = at % slab;
                of_a[r][j] =
                    first_row + r < a.n ? widened(a.rows, a.numbers[first_row + r], begin + j) : 0.0f;
                of_b[r][j] = col + r < b.n ? widened(b.rows, b.numbers[col + r], begin + j) : 0.0f;
            }
            __syncthreads();
            for (std::uint32_t j = lane; j < slab && begin + j - lane < a.rows.d; j += half_warp) {
                float x[part], y[part];
#pragma unroll
                for (std::uint32_t k = 0; k < part; ++k) x[k] = of_a[row0 + k][j], y[k] = of_b[col0 + k][j];
#pragma unroll
                for (std::uint32_t r = 0; r < part; ++r)
#pragma unroll
                    for (std::uint32_t c = 0; c < part; ++c) lanes[r][c] = __fmaf_rn(x[r], y[c], lanes[r][c]);
            }
            // Sums of so few products of bytes are exact in float32: 4 * 2^14 < 2^24.
            if constexpr (integers)
                for (std::uint32_t r = 0; r < part; ++r)
                    for (std::uint32_t c = 0; c < part; ++c)
                        whole[r][c] += static_cast<long long>(lanes[r][c]), lanes[r][c] = 0.0f;
        }
        for (std::uint32_t r = 0; r < part; ++r)
            for (std::uint32_t c = 0; c < part; ++c) {
                double dot;
                if constexpr (integers) {
                    long long sum = whole[r][c];
                    for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
                    dot = static_cast<double>(sum);
                } else {
                    float sum = lanes[r][c];
                    for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
                    dot = static_cast<double>(sum);
                }
                const std::uint32_t i = first_row + row0 + r, j = col + col0 + c;
                if (lane != (r * part + c) % half_warp) continue;
                Partial term{0.0, 0.0};
                if (i < a.n && j < b.n) {
                    const float score = rowwise::similarity_of(metric, dot, a.squares[i], b.squares[j]);
                    if (score == score) term = {scale * static_cast<double>(score), 1.0};
                }
                partial[row0 + r][col0 + c] = term;
            }
        __syncthreads();
        // Eight threads a row, four terms each.
        const Partial* terms = partial[thread / 8] + thread % 8 * 4;
        Partial sum{0.0, 0.0};
        for (std::uint32_t c = 0; c < 4; ++c)
            if (terms[c].sum != 0.0)
                sum.most = sum.sum == 0.0 ? terms[c].most : fmax(sum.most, terms[c].most), sum.sum = 1.0;
        if (sum.sum != 0.0) {
            sum.sum = 0.0;
            for (std::uint32_t c = 0; c < 4; ++c)
                if (terms[c].sum != 0.0) sum.sum += exp(terms[c].most - sum.most);
        }
        for (int step = 1; step < 8; step *= 2)
            sum = merged(sum, {__shfl_xor_sync(~0u, sum.most, step), __shfl_xor_sync(~0u, sum.sum, step)});
        if (thread % 8 == 0) mine = merged(mine, sum);
    }
    const std::uint32_t row = first_row + thread / 8;
    if (thread % 8 == 0 && row < a.n) out[static_cast<std::size_t>(blockIdx.y) * a.n + row] = mine;
}

__global__ void merge_blocks(const Partial* partials, std::uint32_t n, std::uint32_t blocks, double* out) {
    const std::uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    Partial all{0.0, 0.0};
    for (std::uint32_t b = 0; b < blocks; ++b)
        all = merged(all, partials[static_cast<std::size_t>(b) * n + i]);
    out[i] = all.sum == 0.0 ? -HUGE_VAL : all.most + log(all.sum);
}

// Rows at a time: so many that Ctrl-C is answered, and their partial sums take little memory.
constexpr std::size_t slice_rows = 8192;

bool sums_of(const Operand& a, const Operand& b, double scale, double* out, const Poll& poll, double begin) {
    const std::size_t blocks = (b.n + block_cols - 1) / block_cols;
    const Side of_b{rows_of(*b.x), b.row_numbers.get(), b.squares.get(), static_cast<std::uint32_t>(b.n)};
    std::vector<double> by_position(a.n, -HUGE_VAL);
    for (std::size_t first = 0; first < a.n; first += slice_rows) {
        const auto count = static_cast<std::uint32_t>(std::min(slice_rows, a.n - first));
        const Side of_a{rows_of(*a.x), a.row_numbers.get() + first, a.squares.get() + first, count};
        if (blocks > 0) {
            Buffer<Partial> partials(blocks * count);
            Buffer<double> sums(count);
            const auto kernel = a.x->element == Element::int8 ? sum_block<true> : sum_block<false>;
            kernel<<<dim3((count + side - 1) / side, static_cast<std::uint32_t>(blocks)), block_threads>>>(
                of_a, of_b, a.metric, scale, partials.get());
            check(cudaGetLastError(), "starting sums of exponentials");
            merge_blocks<<<(count + 255) / 256, 256>>>(partials.get(), count,
                                                       static_cast<std::uint32_t>(blocks), sums.get());
            check(cudaGetLastError(), "merging sums of exponentials");
            copy_out(by_position.data() + first, sums.get(), count * sizeof(double));
        }
        if (poll && poll(begin + 0.5 * static_cast<double>(first + count) / static_cast<double>(a.n)))
            return false;
    }
    const std::vector<std::uint32_t> order = a.order.host();
    for (std::size_t i = 0; i < a.n; ++i) out[order[i]] = by_position[i];
    return true;
}

}  // namespace

bool log_sum_exp(const Operand& a, const Operand& b, double scale, double* out_a, double* out_b,
                 const Poll& poll) {
    const Current current(a.x->device);
    return sums_of(a, b, scale, out_a, poll, 0.0) && sums_of(b, a, scale, out_b, poll, 0.5);
}

}  // namespace pycurate::cuda
