// Aligned rows on a device.
#include "cuda/rowwise.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <optional>

#include "cuda/rows.h"
#include "kernels/rowwise/similarity.h"

namespace pycurate::cuda {
namespace {

constexpr std::uint32_t block_threads = 256;

struct RowOut {
    float *similarities, *norms_a, *norms_b;
    std::uint8_t* flags;
};

__device__ bool is_finite(double x) { return x - x == 0.0; }
__device__ float norm_of(double square) {
    const auto norm = static_cast<float>(std::sqrt(square));
    return norm == norm ? norm : static_cast<float>(rowwise::quiet_nan);
}
__device__ std::uint8_t flag_of(double square) {
    return !is_finite(square) ? rowwise::a_not_finite : square == 0.0 ? rowwise::a_zero : 0;
}

/// Two threads a row. `b` may be the rows of a again, whose norms alone are wanted then.
__global__ void score_rows(Rows a, Rows b, std::uint32_t n, Metric metric, bool pairs, RowOut out) {
    const std::uint32_t i = blockIdx.x * (block_threads / 2) + threadIdx.x / 2;
    const std::uint32_t threads = __ballot_sync(~0u, i < n);
    if (i >= n) return;
    const char *x = a.row(i), *y = b.row(i);
    const double aa = canonical_dot(x, x, a.d, a.element, a.aligned, threads);
    double ab = 0, bb = 0;
    if (pairs) {
        ab = canonical_dot(x, y, a.d, a.element, a.aligned && b.aligned, threads);
        bb = canonical_dot(y, y, a.d, a.element, b.aligned, threads);
    }
    if ((threadIdx.x & 1u) != 0) return;
    out.norms_a[i] = norm_of(aa);
    out.flags[i] = flag_of(aa);
    if (!pairs) return;
    out.similarities[i] = rowwise::similarity_of(metric, ab, aa, bb);
    out.norms_b[i] = norm_of(bb);
    out.flags[i] |= static_cast<std::uint8_t>(flag_of(bb) << 2);
}

/// Canonical sums of rows with float32 weights; the rows widened.
template <Element element>
__device__ float head_of(const char* x, const float* weights, std::uint32_t d, bool aligned,
                         std::uint32_t threads) {
    const std::uint32_t half = threadIdx.x & 1u;
    float lanes[8] = {};
    for (std::uint32_t group = 0; group < d; group += 16) {
        const std::uint32_t j = group + half * 8;
        float a[8], b[8];
        load8<element>(x, j, d, aligned, a);
        load8<Element::float32>(reinterpret_cast<const char*>(weights), j, d, false, b);
#pragma unroll
        for (int l = 0; l < 8; ++l) lanes[l] = __fmaf_rn(a[l], b[l], lanes[l]);
    }
    return fold_pair(lanes, threads);
}

/// Two threads a row and head.
__global__ void score_heads(Rows x, std::uint64_t n, std::uint32_t count, const float* weights,
                            const float* bias, float* out) {
    const std::uint64_t at = static_cast<std::uint64_t>(blockIdx.x) * (block_threads / 2) + threadIdx.x / 2;
    const std::uint32_t threads = __ballot_sync(~0u, at < n * count);
    if (at >= n * count) return;
    const char* row = x.row(at / count);
    const auto k = static_cast<std::uint32_t>(at % count);
    const float* head = weights + static_cast<std::size_t>(k) * x.d;
    float sum = 0;
    switch (x.element) {
        case Element::float32: sum = head_of<Element::float32>(row, head, x.d, x.aligned, threads); break;
        case Element::float16: sum = head_of<Element::float16>(row, head, x.d, x.aligned, threads); break;
        case Element::bfloat16: sum = head_of<Element::bfloat16>(row, head, x.d, x.aligned, threads); break;
        case Element::int8: sum = head_of<Element::int8>(row, head, x.d, x.aligned, threads); break;
    }
    if ((threadIdx.x & 1u) != 0) return;
    const float score = sum + bias[k];
    out[at] = score == score ? score : static_cast<float>(rowwise::quiet_nan);
}

std::uint32_t blocks_for(std::size_t pairs_of_threads) {
    return static_cast<std::uint32_t>((pairs_of_threads + block_threads / 2 - 1) / (block_threads / 2));
}

void write_heads(const Matrix& x, const Heads* heads, float* out) {
    if (heads == nullptr || heads->count == 0 || x.n == 0) return;
    const auto weights = Buffer<float>::of(heads->weights, heads->count * x.d);
    const auto bias = Buffer<float>::of(heads->bias, heads->count);
    Buffer<float> scores(x.n * heads->count);
    score_heads<<<blocks_for(x.n * heads->count), block_threads>>>(
        rows_of(x), x.n, static_cast<std::uint32_t>(heads->count), weights.get(), bias.get(), scores.get());
    check(cudaGetLastError(), "starting the heads");
    copy_out(out, scores.get(), scores.size() * sizeof(float));
}

}  // namespace

void score_pairs(const Matrix& a, const Matrix& b, Metric metric, const Heads* heads_a, const Heads* heads_b,
                 const RowScores& out) {
    const Current current(a.device);
    if (a.n > 0) {
        Buffer<float> similarities(a.n), norms_a(a.n), norms_b(a.n);
        Buffer<std::uint8_t> flags(a.n);
        score_rows<<<blocks_for(a.n), block_threads>>>(
            rows_of(a), rows_of(b), static_cast<std::uint32_t>(a.n), metric, true,
            {similarities.get(), norms_a.get(), norms_b.get(), flags.get()});
        check(cudaGetLastError(), "starting similarities of rows");
        copy_out(out.similarities, similarities.get(), a.n * sizeof(float));
        copy_out(out.norms_a, norms_a.get(), a.n * sizeof(float));
        copy_out(out.norms_b, norms_b.get(), a.n * sizeof(float));
        copy_out(out.flags, flags.get(), a.n);
    }
    write_heads(a, heads_a, out.heads_a);
    write_heads(b, heads_b, out.heads_b);
}

void measure_rows(const Matrix& x, const Heads* heads, float* norms, std::uint8_t* flags, float* out) {
    const Current current(x.device);
    if (x.n > 0) {
        Buffer<float> of_x(x.n);
        Buffer<std::uint8_t> of_flags(x.n);
        score_rows<<<blocks_for(x.n), block_threads>>>(rows_of(x), rows_of(x),
                                                       static_cast<std::uint32_t>(x.n), Metric::cosine, false,
                                                       {nullptr, of_x.get(), nullptr, of_flags.get()});
        check(cudaGetLastError(), "starting the norms");
        copy_out(norms, of_x.get(), x.n * sizeof(float));
        copy_out(flags, of_flags.get(), x.n);
    }
    write_heads(x, heads, out);
}

}  // namespace pycurate::cuda
