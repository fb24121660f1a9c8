#pragma once
// From canonical sums to similarities: the one place of the arithmetic after the sums. Not to be included in
// a file compiled for a stronger instruction set; see common/half.h.
#include <cmath>
#include <limits>

#include "common/host_device.h"
#include "kernels/rowwise/rowwise.h"

namespace pycurate::rowwise {

// As float32 it is 0x7fc00000, the one NaN that is written.
constexpr double quiet_nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

PYCURATE_HOST_DEVICE inline float finite_or_nan(float value) noexcept {
    constexpr float largest = std::numeric_limits<float>::max();
    return (value <= largest) & (value >= -largest) ? value : static_cast<float>(quiet_nan);
}

PYCURATE_HOST_DEVICE inline float cosine_of(double ab, double aa, double bb) noexcept {
    const double product = aa * bb;
    const bool judged = (product > 0) & (product < infinity) & (ab < infinity) & (ab > -infinity);
    const double cosine = ab / std::sqrt(product);
    const double clamped = cosine > 1.0 ? 1.0 : (cosine < -1.0 ? -1.0 : cosine);
    return static_cast<float>(judged ? clamped : quiet_nan);
}

PYCURATE_HOST_DEVICE inline float inner_product_of(double ab) noexcept {
    return finite_or_nan(static_cast<float>(ab));
}

PYCURATE_HOST_DEVICE inline float l2_of(double ab, double aa, double bb) noexcept {
    const double distance = aa + bb - 2.0 * ab;
    const double judged = (ab < infinity) & (ab > -infinity) ? distance : quiet_nan;
    return finite_or_nan(static_cast<float>(0.0 - (judged < 0.0 ? 0.0 : judged)));
}

PYCURATE_HOST_DEVICE inline float similarity_of(Metric metric, double ab, double aa, double bb) noexcept {
    switch (metric) {
        case Metric::cosine: return cosine_of(ab, aa, bb);
        case Metric::inner_product: return inner_product_of(ab);
        case Metric::l2: break;
    }
    return l2_of(ab, aa, bb);
}

PYCURATE_HOST_DEVICE inline std::size_t element_bytes(Element element) noexcept {
    switch (element) {
        case Element::float32: return 4;
        case Element::float16:
        case Element::bfloat16: return 2;
        case Element::int8: break;
    }
    return 1;
}

}  // namespace pycurate::rowwise
