#pragma once
// The arithmetic of the bound by which pairs are discarded unscored (see Stage), for rows that are prepared
// here and on a GPU.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/host_device.h"
#include "kernels/fused_similarity/tiles.h"

namespace pycurate::fused_similarity {

constexpr double half_ulp = 0x1p-24;

/// gamma_k of rounding analysis: k roundings in a row.
PYCURATE_HOST_DEVICE inline double gamma(double k) noexcept { return k * half_ulp / (1.0 - k * half_ulp); }

/// |canonical - exact| for cosine: each of 16 lanes adds d / 16 products with one rounding each, four folds,
/// and the square root, division and last rounding; the sums of squares likewise, but half of their error
/// stays.
PYCURATE_HOST_DEVICE inline double canonical_error_of(std::size_t d) noexcept {
    return 2.0 * gamma(static_cast<double>((d + lanes - 1) / lanes) + 4) + 4.0 * half_ulp;
}

// A row whose squared norm is below this may have lost digits to float32's smallest numbers in its canonical
// sums, so nothing is said of its similarities: it is scored with every row. 2^-100 leaves 2^49 of them.
constexpr double fragile_square = 0x1p-100;
// Most coordinates of a row whose int32 sums and shares together stay below 2^31: 255 * 127 * 16,384 < 2^29.
constexpr std::size_t most_coordinates = 16'384;

// Transforms of a rotation: one where d is a power of two, else three that overlap.
constexpr std::size_t transforms = 3;
constexpr double rotation_roundings = 3 * 16;  // at most, of a coordinate: levels of three transforms

/// Signs before each transform of a rotation, so that no natural vector is one of the transform's own, nor
/// what one of them leaves of it one of the next: (transforms, d).
inline std::vector<float> rotation_signs(std::size_t d) {
    std::vector<float> signs(transforms * d);
    std::uint64_t state = 0x9e3779b97f4a7c15u;
    for (float& sign : signs) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        sign = (state >> 32 & 1u) != 0 ? 1.0f : -1.0f;
    }
    return signs;
}

/// Where the transforms of a rotation of d coordinates begin, and their width: at the front, at the back and
/// in the middle, which overlap; the first only where d is a power of two.
PYCURATE_HOST_DEVICE inline std::size_t transform_width(std::size_t d) noexcept {
    std::size_t width = 1;
    while (width * 2 <= d) width *= 2;
    return width;
}
PYCURATE_HOST_DEVICE inline std::size_t transform_begin(std::size_t d, std::size_t transform) noexcept {
    const std::size_t rest = d - transform_width(d);
    return transform == 0 ? 0 : transform == 1 ? rest : rest / 2;
}
PYCURATE_HOST_DEVICE inline std::size_t transforms_of(std::size_t d) noexcept {
    return transform_width(d) == d ? 1 : transforms;
}

/// Step of a quantised coordinate of vectors whose length is `norm`. A rotated row's coordinates are nearly
/// Gaussian: clipping at four standard deviations loses least.
inline double scale_of(std::size_t coordinates, double norm) noexcept {
    if (coordinates < lanes) return norm / 127.0;  // too few to mix
    return 4.0 * norm / std::sqrt(static_cast<double>(coordinates)) / 127.0;
}

/// Frobenius norm of rows * rows' - 1 of (p, d) rows that are orthonormal but for rounding.
inline double defect_of(const float* rows, std::size_t p, std::size_t d) noexcept {
    double defect = 0;
    for (std::size_t i = 0; i < p; ++i)
        for (std::size_t k = 0; k <= i; ++k) {
            double dot = i == k ? -1.0 : 0.0;
            for (std::size_t j = 0; j < d; ++j)
                dot += static_cast<double>(rows[i * d + j]) * static_cast<double>(rows[k * d + j]);
            defect += dot * dot * (i == k ? 1.0 : 2.0);
        }
    return std::sqrt(defect);
}

/// What float32 sums of squares over a stage's coordinates say of a unit row.
struct RowSums {
    float squares, errors;  // of the coordinates, and of what quantising them lost
};

/// A row's share of the bound, as Stage says. `whole`: the stage has all coordinates. `lost`: of a unit
/// vector in float32 before quantising.
PYCURATE_HOST_DEVICE inline double share_of(RowSums sums, std::size_t coordinates, bool whole,
                                            double lost) noexcept {
    // Of a float32 sum of squares, one term after the other.
    const double summing = gamma(static_cast<double>(coordinates) + 4.0);
    double rest = 0.0;
    if (!whole) {
        const double norm = std::sqrt(static_cast<double>(sums.squares)) * (1.0 - summing) - lost;
        const double length = norm > 0.0 ? norm : 0.0;
        rest = 1.00001 - length * length;
        if (!(rest > 0.0)) rest = 0.0;
    }
    const double error = std::sqrt(static_cast<double>(sums.errors)) * (1.0 + summing) + lost;
    return 1.00001 * error + error * error / 2.0 + rest / 2.0;
}

/// A share in units of a tile's sums, rounded up; `passing`, which lets every pair pass, where it is larger.
PYCURATE_HOST_DEVICE inline std::int32_t in_units(double share, double unit, std::int32_t passing) noexcept {
    const double units = std::ceil(share / unit);
    return units < static_cast<double>(passing) ? static_cast<std::int32_t>(units) : passing;
}

/// The least sum whose cosine may reach `limit`, within +- `most`.
PYCURATE_HOST_DEVICE inline std::int32_t least_sum_of(float limit, double extra, double unit,
                                                      double most) noexcept {
    const double sum = std::floor((static_cast<double>(limit) - extra) / unit);
    return static_cast<std::int32_t>(sum < -most ? -most : sum > most ? most : sum);
}

/// Scores are factor_x * factor_y * cosine + bias_x + bias_y, of a row of this canonical squared norm. Of a
/// row so short that its squares may be lost, no product is bounded: it could be of a row of 10^19.
PYCURATE_HOST_DEVICE inline float factor_of(rowwise::Metric metric, double square) noexcept {
    if (metric == rowwise::Metric::cosine) return 1.0f;
    if (!(square >= fragile_square)) return static_cast<float>(HUGE_VAL);
    const double norm = std::sqrt(square);
    return static_cast<float>(metric == rowwise::Metric::l2 ? norm * std::sqrt(2.0) : norm);
}
/// For l2 raised by what float32 and the canonical sums may lose.
PYCURATE_HOST_DEVICE inline float bias_of(rowwise::Metric metric, double square, std::size_t d) noexcept {
    return metric == rowwise::Metric::l2 ? static_cast<float>(-square * (1.0 - 4.0 * canonical_error_of(d)))
                                         : 0.0f;
}

}  // namespace pycurate::fused_similarity
