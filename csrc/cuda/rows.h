#pragma once
// What the files of fused similarity on a device share about operands.
#include "cuda/canonical.cuh"
#include "cuda/fused_similarity.h"
#include "kernels/fused_similarity/shares.h"

namespace pycurate::cuda {

Rows rows_of(const Matrix& x);
/// Starts canonical squared norms of n rows, those of `numbers` unless it is null.
void start_squares(const Rows& x, const std::uint32_t* numbers, std::uint32_t n, double* out);

/// The scale of quantised coordinates as float32 has it, which the quantiser used.
inline double float_scale_of(std::size_t d) noexcept {
    return static_cast<double>(static_cast<float>(fused_similarity::scale_of(d, 1.0)));
}
/// A tile's sum of 1, in cosine.
inline double unit_of(std::size_t d) noexcept { return float_scale_of(d) * float_scale_of(d); }
/// What float32 loses of a cosine beside the shares.
inline double extra_of(std::size_t d) noexcept { return fused_similarity::canonical_error_of(d) + 1e-6; }

}  // namespace pycurate::cuda
