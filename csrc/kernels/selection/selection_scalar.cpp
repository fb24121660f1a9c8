#include <limits>

#include "kernels/selection/dense.h"

namespace pycurate::selection {
namespace {

constexpr std::size_t lanes = 16;

double gain(const float* similarities, const float* covered, const double* weights, std::size_t n,
            std::size_t* better) noexcept {
    double sums[lanes] = {};
    *better = 0;
    for (std::size_t i = 0; i < n; ++i) {
        if (!(similarities[i] > covered[i])) continue;  // adding 0 changes no sum
        const double gained = static_cast<double>(similarities[i]) - static_cast<double>(covered[i]);
        sums[i % lanes] += weights != nullptr ? weights[i] * gained : gained;
        ++*better;
    }
    for (std::size_t half = lanes / 2; half > 0; half /= 2)
        for (std::size_t l = 0; l < half; ++l) sums[l] += sums[l + half];
    return sums[0];
}

void collect(const float* similarities, const float* covered, std::size_t n, std::uint32_t* rows,
             float* collected) noexcept {
    for (std::size_t i = 0; i < n; ++i)
        if (similarities[i] > covered[i]) {
            *rows++ = static_cast<std::uint32_t>(i);
            *collected++ = similarities[i];
        }
}

bool valid(const float* similarities, std::size_t n, bool negative) noexcept {
    const float largest = std::numeric_limits<float>::max(), least = negative ? -largest : 0.0f;
    bool good = true;
    for (std::size_t i = 0; i < n; ++i) good = good && similarities[i] >= least && similarities[i] <= largest;
    return good;
}

void cover(const float* similarities, std::uint32_t name, float* covered, std::uint32_t* representative,
           std::size_t n) noexcept {
    for (std::size_t i = 0; i < n; ++i)
        if (similarities[i] > covered[i]) {
            covered[i] = similarities[i];
            representative[i] = name;
        }
}

}  // namespace

extern const Kernels scalar{gain, collect, valid, cover};

}  // namespace pycurate::selection
