#include <algorithm>

#include "kernels/phash/phash.h"
#include "kernels/phash/reduction.h"

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

/// A line of 8 coefficients as `size` samples, in 2^-shift: the first half of them and their mirror images
/// differ in the sign of the odd coefficients.
void reduce_line(const std::int32_t* line, std::size_t step, std::size_t size, unsigned shift,
                 std::int32_t* samples, std::size_t sample_step) noexcept {
    const std::int32_t half = 1 << (shift - 1);
    for (std::size_t i = 0; i < size / 2; ++i) {
        const std::int32_t* weights = size == 4 ? reduction_to_4[i] : reduction_to_2;
        std::int32_t even = 0, odd = 0;
        for (std::size_t k = 0; k < 8; k += 2) even += weights[k] * line[k * step];
        for (std::size_t k = 1; k < 8; k += 2) odd += weights[k] * line[k * step];
        samples[i * sample_step] = (even + odd + half) >> shift;
        samples[(size - 1 - i) * sample_step] = (even - odd + half) >> shift;
    }
}

bool reduce_blocks(const std::int16_t* coefficients, std::size_t count, const std::int16_t* quantisers,
                   std::size_t size, std::uint8_t* out) noexcept {
    const unsigned first_shift = reduction_bits(size) - 2, second_shift = reduction_bits(size) + 5;
    bool fine = true;
    for (std::size_t block = 0; block < count; ++block) {
        std::int32_t values[64]{}, columns[32]{}, samples[16]{};
        for (std::size_t k = 0; k < 64; ++k) {
            values[k] = coefficients[64 * block + k] * quantisers[k];
            fine = fine && values[k] >= -most_value - 1 && values[k] <= most_value;
        }
        if (!fine) return false;
        for (std::size_t x = 0; x < 8; ++x) reduce_line(values + x, 8, size, first_shift, columns + x, 8);
        for (std::size_t i = 0; i < 8 * size; ++i)
            fine = fine && columns[i] >= -most_column - 1 && columns[i] <= most_column;
        if (!fine) return false;
        for (std::size_t y = 0; y < size; ++y)
            reduce_line(columns + 8 * y, 1, size, second_shift, samples + size * y, 1);
        for (std::size_t i = 0; i < size * size; ++i) {
            fine = fine && samples[i] >= -512 && samples[i] <= 511;
            out[i / size * size * count + size * block + i % size] =
                static_cast<std::uint8_t>(std::clamp(samples[i] + 128, 0, 255));
        }
    }
    return fine;
}

}  // namespace

extern const Kernels scalar{add_weighted, grey_of_rgb, grey_of_rgba, transform, reduce_blocks};

}  // namespace pycurate::phash
