#pragma once
// log(x) of float64 as every instruction set computes it, the same operations in the same order.
//
// x = m 2^e with m from sqrt(1/2) to sqrt(2); s = (m - 1) / (m + 1); log(m) = 2 s (1 + s^2/3 + s^4/5 + ...).
// With s^2 <= 0.0295 the term of s^24 is below 2^-60. Within 2 units in the last place of log(x).
#include <cstdint>

namespace pycurate::confident {
namespace {

constexpr std::uint64_t root_half_bits = 0x3fe6a09e667f3bcdu, one_bits = 0x3ff0000000000000u,
                        mantissa_mask = 0x000fffffffffffffu;
constexpr double ln2_high = 0x1.62e42fefa38p-1,
                 ln2_low = 0x1.ef35793c7673p-45;  // high has 11 zero bits at its end
constexpr double least_probability = 0x1p-1000;
constexpr int series_terms = 12;
constexpr double series[series_terms] = {1.0 / 23, 1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13,
                                         1.0 / 11, 1.0 / 9,  1.0 / 7,  1.0 / 5,  1.0 / 3,  1.0};
constexpr std::size_t entropy_lanes = 8;

}  // namespace
}  // namespace pycurate::confident
