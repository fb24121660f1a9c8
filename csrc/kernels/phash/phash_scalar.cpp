#include <algorithm>

#include "kernels/phash/phash.h"

namespace pycurate::phash {
namespace {

void add_weighted(const std::uint8_t* grey, std::size_t n, std::uint32_t weight,
                  std::uint32_t* sums) noexcept {
    for (std::size_t x = 0; x < n; ++x) sums[x] += weight * grey[x];
}

/// ITU-R 601 in 16 bits, as Pillow's convert("L").
std::uint32_t grey_of(const std::uint8_t* p) noexcept {
    return (19595u * p[0] + 38470u * p[1] + 7471u * p[2] + 32768u) >> 16;
}

void grey_of_rgb(const std::uint8_t* pixels, std::size_t n, std::uint8_t* grey) noexcept {
    for (std::size_t x = 0; x < n; ++x) grey[x] = static_cast<std::uint8_t>(grey_of(pixels + 3 * x));
}

void grey_of_rgba(const std::uint8_t* pixels, std::size_t n, std::uint8_t* grey) noexcept {
    for (std::size_t x = 0; x < n; ++x) {
        const std::uint32_t alpha = pixels[4 * x + 3];
        // Divided by 255 and rounded, exact below 65,536.
        const std::uint32_t sum = grey_of(pixels + 4 * x) * alpha + 255u * (255u - alpha) + 128u;
        grey[x] = static_cast<std::uint8_t>((sum + (sum >> 8)) >> 8);
    }
}

void transform(const double* cells, std::size_t size, const double* cosines, std::size_t count,
               double* out) noexcept {
    std::fill_n(out, count * count, 0.0);
    for (std::size_t u = 0; u < count; ++u)
        for (std::size_t j = 0; j < size; ++j) {
            double column = 0;
            for (std::size_t i = 0; i < size; ++i) column += cosines[i * count + u] * cells[i * size + j];
            for (std::size_t v = 0; v < count; ++v) out[u * count + v] += column * cosines[j * count + v];
        }
}

}  // namespace

extern const Kernels scalar{add_weighted, grey_of_rgb, grey_of_rgba, transform};

}  // namespace pycurate::phash
