// Small dense algebra for samples of rows. Not BLAS: its threads are not the caller's, and on a busy machine
// they wait for each other longer than a join takes; and its bits differ from processor to processor.
#include <algorithm>
#include <cmath>

#include "common/float_environment.h"
#include "common/thread_pool.h"
#include "kernels/fused_similarity/fused_similarity.h"

namespace pycurate::fused_similarity {
namespace {

/// Rows filled up with zeros to a multiple of 16 coordinates, and with zero rows to a multiple of `multiple`.
AlignedBuffer<float> padded(const float* rows, std::size_t n, std::size_t d, std::size_t width,
                            std::size_t multiple) {
    AlignedBuffer<float> out(std::max<std::size_t>((n + multiple - 1) / multiple * multiple * width, 1));
    std::fill_n(out.data(), out.size(), 0.0f);
    for (std::size_t i = 0; i < n; ++i) std::copy_n(rows + i * d, d, out.data() + i * width);
    return out;
}

double dot(const double* x, const double* y, std::size_t d) noexcept {
    double sums[4] = {};
    std::size_t j = 0;
    for (; j + 4 <= d; j += 4)
        for (std::size_t l = 0; l < 4; ++l) sums[l] += x[j + l] * y[j + l];
    for (; j < d; ++j) sums[0] += x[j] * y[j];
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/// Take from `row` what it shares with the first `count` rows; its length before and after.
std::pair<double, double> subtract_shared(const double* rows, std::size_t count, std::size_t d, double* row) {
    const double before = std::sqrt(dot(row, row, d));
    for (std::size_t i = 0; i < count; ++i) {
        const double shared = dot(rows + i * d, row, d);
        for (std::size_t j = 0; j < d; ++j) row[j] -= shared * rows[i * d + j];
    }
    return {before, std::sqrt(dot(row, row, d))};
}

}  // namespace

void products(const float* a, std::size_t m, const float* b, std::size_t n, std::size_t d, float* out,
              std::size_t threads) {
    const std::size_t width = (d + lanes - 1) / lanes * lanes;
    const AlignedBuffer<float> groups = padded(a, m, d, width, group_rows),
                               panels = padded(b, n, d, width, panel_rows);
    const Kernels& kernels = active_kernels();
    const auto task = [&](std::size_t panel) {
        const DefaultFloatEnvironment environment;
        float tile[group_rows * panel_rows];
        const std::size_t col = panel * panel_rows, cols = std::min(panel_rows, n - col);
        for (std::size_t row = 0; row < m; row += group_rows) {
            kernels.canonical_tile(groups.data() + row * width, panels.data() + col * width, width, width,
                                   tile);
            for (std::size_t r = 0; r < std::min(group_rows, m - row); ++r)
                std::copy_n(tile + r * panel_rows, cols, out + (row + r) * n + col);
        }
    };
    parallel_for((n + panel_rows - 1) / panel_rows, threads, task, {});
}

void orthonormalise(const float* rows, std::size_t count, std::size_t d, float* out) {
    std::vector<double> basis(rows, rows + count * d);
    for (std::size_t i = 0; i < count; ++i) {
        double* row = basis.data() + i * d;
        auto [before, after] = subtract_shared(basis.data(), i, d, row);
        // Once more where little was left, of which rounding's share of the first time is no longer small.
        if (after < 0.5 * before) {
            const double once = after;
            after = subtract_shared(basis.data(), i, d, row).second;
            if (!(after > 1e-6 * before && after > 0.1 * once)) after = 0;
        }
        // In the span of those before: any row that is not will do.
        for (std::size_t axis = 0; !(after > 0) && axis < d; ++axis) {
            std::fill_n(row, d, 0.0);
            row[axis] = 1;
            subtract_shared(basis.data(), i, d, row);
            after = subtract_shared(basis.data(), i, d, row).second;
            if (after < 0.5 / std::sqrt(static_cast<double>(d))) after = 0;
        }
        for (std::size_t j = 0; j < d; ++j) {
            row[j] /= after;
            out[i * d + j] = static_cast<float>(row[j]);
        }
    }
}

}  // namespace pycurate::fused_similarity
