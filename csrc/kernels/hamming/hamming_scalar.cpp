#include <bit>

#include "kernels/hamming/tiles.h"

namespace pycurate::hamming {
namespace {

std::size_t near(Planes a, std::size_t rows, Planes b, std::size_t cols, std::size_t words, unsigned radius,
                 bool upper, Hit* hits) noexcept {
    std::size_t found = 0;
    for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = upper ? i + 1 : 0; j < cols; ++j) {
            unsigned distance = 0;
            for (std::size_t w = 0; w < words; ++w)
                distance += static_cast<unsigned>(
                    std::popcount(a.words[w * a.stride + i] ^ b.words[w * b.stride + j]));
            if (distance <= radius)
                hits[found++] = {static_cast<std::uint16_t>(i), static_cast<std::uint16_t>(j), distance};
        }
    return found;
}

}  // namespace

extern const Kernels scalar{near};

}  // namespace pycurate::hamming
