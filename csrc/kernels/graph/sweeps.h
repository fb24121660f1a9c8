#pragma once
// What every instruction set provides for a range of rows of one block.
#include "kernels/graph/graph.h"

namespace pycurate::graph {

/// Room for one row of a dense sweep: sums and seeds, `width` each.
template <class T>
struct RowRoom {
    T* sums;
    T* seeds;  // zero between rows
};

/// Room for one row of a top sweep: sums by label; none is seen between rows.
struct TableRoom {
    float* sums;             // (padded(labels),)
    std::uint8_t* seen;      // (labels,), not used up to table_labels
    std::uint32_t* touched;  // (labels,), likewise
};
/// Up to so many labels a row's sums are cleared whole: 4 KiB, the work of some 60 vectors.
constexpr std::size_t table_labels = 1024;
constexpr std::size_t padded(std::size_t labels) noexcept { return (labels + 15) / 16 * 16; }

constexpr std::size_t change_lanes = 16;

struct Kernels {
    // Rows begin to end - 1 of the range. changes: change_lanes sums of |change|, lane l of the columns
    // congruent to l.
    void (*dense_float)(const DenseSweep<float>&, std::size_t begin, std::size_t end, RowRoom<float>,
                        double* changes) noexcept;
    void (*dense_double)(const DenseSweep<double>&, std::size_t begin, std::size_t end, RowRoom<double>,
                         double* changes) noexcept;
    double (*top)(const TopSweep&, std::size_t begin, std::size_t end, TableRoom) noexcept;
    // dots, squares: (width,) added to.
    void (*product)(const Edges<float>&, const std::uint8_t* clamped, const float* direction, float* product,
                    std::size_t width, float alpha, std::size_t begin, std::size_t end,
                    double* dots) noexcept;
    void (*step)(const CgStep&, std::size_t begin, std::size_t end, double* squares,
                 double* changes) noexcept;
    void (*turn)(const float* residual, const float* ratio, float* direction, std::size_t width,
                 std::size_t begin, std::size_t end) noexcept;
};

extern const Kernels scalar, avx2, avx512;
const Kernels& active_kernels() noexcept;

}  // namespace pycurate::graph
