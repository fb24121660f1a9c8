#pragma once
// The GPU twin of kernels/rowwise: the same bits.
#include "cuda/fused_similarity.h"

namespace pycurate::cuda {

/// Linear heads as rowwise::Heads, in host memory.
struct Heads {
    const float *weights, *bias;  // (count, d), (count,)
    std::size_t count;
};

/// Where the answers go, in host memory: (n,) each, heads (n, count).
struct RowScores {
    float *similarities, *norms_a, *norms_b;
    std::uint8_t* flags;
    float *heads_a, *heads_b;
};

/// See rowwise::PairRequest and rowwise::RowRequest; heads may be null.
void score_pairs(const Matrix& a, const Matrix& b, Metric metric, const Heads* heads_a, const Heads* heads_b,
                 const RowScores& out);
void measure_rows(const Matrix& x, const Heads* heads, float* norms, std::uint8_t* flags, float* out);

}  // namespace pycurate::cuda
