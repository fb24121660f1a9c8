#pragma once
// What is done with the similarities of one dense candidate, per instruction set.
#include <cstddef>
#include <cstdint>

namespace pycurate::selection {

/// Over one dense candidate. Sums have 16 lanes, lane l taking rows l, l + 16, ... in rising order, folded
/// +8, +4, +2, +1.
struct Kernels {
    /// Sum of weight * (max(similarity, covered) - covered); better: set to how many rows are more similar
    /// than covered.
    double (*gain)(const float* similarities, const float* covered, const double* weights, std::size_t n,
                   std::size_t* better) noexcept;
    /// Those rows, rising, and their similarities, into buffers of that size.
    void (*collect)(const float* similarities, const float* covered, std::size_t n, std::uint32_t* rows,
                    float* collected) noexcept;
    /// Whether each is finite and, unless `negative`, at least 0.
    bool (*valid)(const float* similarities, std::size_t n, bool negative) noexcept;
    /// Rows that are more similar to this candidate than to any before it get its name.
    void (*cover)(const float* similarities, std::uint32_t name, float* covered,
                  std::uint32_t* representative, std::size_t n) noexcept;
};
extern const Kernels scalar, avx2;
const Kernels& active_kernels() noexcept;

}  // namespace pycurate::selection
