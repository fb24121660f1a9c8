#pragma once
// What the files of fused similarity on a device share about operands.
#include "cuda/canonical.cuh"
#include "cuda/fused_similarity.h"
#include "kernels/fused_similarity/shares.h"

namespace pycurate::cuda {

Rows rows_of(const Matrix& x);
/// Starts canonical squared norms of n rows, those of `numbers` unless it is null.
void start_squares(const Rows& x, const std::uint32_t* numbers, std::uint32_t n, double* out);

/// Starts out[i][p] = canonical unit row i times direction p of `count`, in float32; rows by index.
void start_projection(const Rows& x, const std::uint32_t* numbers, const double* squares, std::uint32_t n,
                      const float* directions, std::uint32_t count, float* out);
/// Starts the nearest centroid of each projected row, by dot product of the first coordinates; it only orders
/// rows.
void start_assignment(const float* projected, std::uint32_t n, std::uint32_t p, const float* centroids,
                      std::uint32_t count, std::uint32_t coordinates, std::uint32_t* out);

/// The scale of quantised coordinates as float32 has it, which the quantiser used.
inline double float_scale_of(std::size_t d) noexcept {
    return static_cast<double>(static_cast<float>(fused_similarity::scale_of(d, 1.0)));
}
/// A tile's sum of 1, in cosine.
inline double unit_of(std::size_t d) noexcept { return float_scale_of(d) * float_scale_of(d); }
/// What float32 loses of a cosine beside the shares.
inline double extra_of(std::size_t d) noexcept { return fused_similarity::canonical_error_of(d) + 1e-6; }

}  // namespace pycurate::cuda
