#include "kernels/votes/votes.h"

namespace pycurate::votes {
namespace {

constexpr std::size_t lanes = 8;

void add_posteriors(const std::int32_t* labels, const double* counts, std::size_t m, const double* given,
                    const double* prior, std::size_t stride, double* sums, double* prior_sums,
                    double* totals) noexcept {
    for (std::size_t t = 0; t < m; ++t) {
        const std::size_t at[3] = {static_cast<std::size_t>(labels[3 * t]) * stride,
                                   static_cast<std::size_t>(labels[3 * t + 1]) * stride,
                                   static_cast<std::size_t>(labels[3 * t + 2]) * stride};
        const auto joint = [&](std::size_t k) {
            return prior[k] * given[at[0] + k] * given[at[1] + k] * given[at[2] + k];
        };
        double lane[lanes] = {};
        for (std::size_t k = 0; k < stride; ++k) lane[k % lanes] += joint(k);
        for (std::size_t half = lanes / 2; half > 0; half /= 2)
            for (std::size_t l = 0; l < half; ++l) lane[l] += lane[l + half];
        totals[t] = lane[0];
        if (!(lane[0] > 0)) continue;
        const double factor = counts[t] / lane[0];
        for (std::size_t k = 0; k < stride; ++k) {
            const double expected = joint(k) * factor;
            for (const std::size_t row : at) sums[row + k] += expected;
            prior_sums[k] += expected;
        }
    }
}

}  // namespace

extern const Kernels scalar{add_posteriors};

}  // namespace pycurate::votes
