#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/phash/phash.h"

namespace pycurate::phash {
namespace {

constexpr std::size_t cells_per_bit = 4;  // on a side: 32 x 32 cells for 8 x 8 bits
constexpr std::size_t most_cells = cells_per_bit * most_side;
constexpr std::uint64_t grey_steps = 64;  // cells are in 64ths of a grey level

using Code = std::array<std::uint64_t, most_side * most_side / 64>;

/// Length that [n * i, n * (i + 1)) and [cells * x, cells * (x + 1)) share: how much of pixel x of n lies in
/// cell i, where a pixel is `cells` long.
std::size_t overlap(std::size_t n, std::size_t cells, std::size_t i, std::size_t x) noexcept {
    return std::min(n * (i + 1), cells * (x + 1)) - std::max(n * i, cells * x);
}

/// Mean grey of each of rows x cols cells of equal area, in `grey_steps`, halves rounded up.
std::vector<std::uint32_t> mean_cells(const Picture& picture, std::size_t rows, std::size_t cols) {
    const Kernels& kernels = active_kernels();
    const std::size_t width = picture.width, height = picture.height;
    std::vector<std::uint8_t> grey(picture.channels == 1 ? 0 : width);
    std::vector<std::uint32_t> sums(width), cells(rows * cols);
    const std::uint64_t area = std::uint64_t{width} * height;
    for (std::size_t i = 0; i < rows; ++i) {
        std::fill(sums.begin(), sums.end(), 0);
        for (std::size_t y = height * i / rows; rows * y < height * (i + 1); ++y) {
            const std::uint8_t* row = picture.pixels + static_cast<std::ptrdiff_t>(y) * picture.row_stride;
            if (picture.channels != 1) {
                (picture.channels == 3 ? kernels.grey_of_rgb : kernels.grey_of_rgba)(row, width, grey.data());
                row = grey.data();
            }
            kernels.add_weighted(row, width, static_cast<std::uint32_t>(overlap(height, rows, i, y)),
                                 sums.data());
        }
        for (std::size_t j = 0; j < cols; ++j) {
            std::uint64_t total = 0;
            for (std::size_t x = width * j / cols; cols * x < width * (j + 1); ++x)
                total += std::uint64_t{overlap(width, cols, j, x)} * sums[x];
            cells[i * cols + j] = static_cast<std::uint32_t>((2 * grey_steps * total + area) / (2 * area));
        }
    }
    return cells;
}

/// Cells that differ by less than one grey level hold nothing but noise.
bool is_flat(const std::vector<std::uint32_t>& cells) {
    const auto [least, most] = std::minmax_element(cells.begin(), cells.end());
    return *most - *least < grey_steps;
}

/// cosines[n * side + k] = round(8192 cos(pi k (2n + 1) / (2 cells))): 13 bits, so that all sums stay below
/// 2^53. No value lies near the middle between two integers, so that every cos() gives these.
const std::vector<double>& cosines_of(std::size_t side) {
    const auto make = [](std::size_t bits) {
        const std::size_t cells = cells_per_bit * bits;
        std::vector<double> table(cells * bits);
        for (std::size_t n = 0; n < cells; ++n)
            for (std::size_t k = 0; k < bits; ++k)
                table[n * bits + k] =
                    std::round(8192 * std::cos(3.14159265358979323846 * static_cast<double>(k * (2 * n + 1)) /
                                               static_cast<double>(2 * cells)));
        return table;
    };
    static const std::vector<double> small = make(8), large = make(16);
    return side == 8 ? small : large;
}

void set_bit(Code& code, std::size_t bit) noexcept { code[bit / 64] |= std::uint64_t{1} << (63 - bit % 64); }

/// Bits of the coefficients above their median. Mirrored pictures have coefficients of the other sign at odd
/// places, transposed ones have them transposed.
Code code_of(const double* coefficients, std::size_t side, bool transposed, bool flip_rows, bool flip_cols) {
    std::array<double, most_side * most_side> values, sorted;
    const std::size_t count = side * side;
    for (std::size_t u = 0; u < side; ++u)
        for (std::size_t v = 0; v < side; ++v) {
            const double value = coefficients[transposed ? v * side + u : u * side + v];
            const bool negated = (flip_rows && u % 2 == 1) != (flip_cols && v % 2 == 1);
            values[u * side + v] = negated ? -value : value;
        }
    std::copy_n(values.begin(), count, sorted.begin());
    const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(count / 2);
    std::nth_element(sorted.begin(), middle, sorted.begin() + static_cast<std::ptrdiff_t>(count));
    const double twice_median = *middle + *std::max_element(sorted.begin(), middle);
    Code code{};
    for (std::size_t i = 0; i < count; ++i)
        if (2 * values[i] > twice_median) set_bit(code, i);
    return code;
}

bool dct_codes(const Picture& picture, std::size_t side, bool dihedral, std::vector<Code>& codes) {
    const std::size_t size = cells_per_bit * side;
    const auto cells = mean_cells(picture, size, size);
    if (is_flat(cells)) return false;
    std::array<double, most_cells * most_cells> values;
    std::copy(cells.begin(), cells.end(), values.begin());
    std::array<double, most_side * most_side> coefficients;
    active_kernels().transform(values.data(), size, cosines_of(side).data(), side, coefficients.data());
    for (unsigned way = 0; way < (dihedral ? 8u : 1u); ++way)
        codes.push_back(code_of(coefficients.data(), side, way & 4, way & 2, way & 1));
    return true;
}

/// round(4096 sinc(x) sinc(x / 3)) at x = 1/8, 3/8, ..., 23/8: Lanczos' window of three lobes, for pixels
/// that are four cells long.
constexpr std::array<std::int64_t, 3 * cells_per_bit> lanczos{3980, 3130, 1793, 494, -348, -603,
                                                              -432, -125, 84,   124, 64,   8};

/// A line of pixels from one of cells: for each the weighted sum of the cells near it, and of their weights.
void sum_near(const std::int64_t* cells, std::size_t pixels, std::int64_t* sums,
              std::int64_t* weights) noexcept {
    const std::size_t count = cells_per_bit * pixels;
    for (std::size_t pixel = 0; pixel < pixels; ++pixel) {
        const std::size_t middle = cells_per_bit * pixel + cells_per_bit / 2;
        std::int64_t sum = 0, weight = 0;
        for (std::size_t away = 0; away < lanczos.size(); ++away) {
            if (middle + away < count) sum += lanczos[away] * cells[middle + away], weight += lanczos[away];
            if (middle > away) sum += lanczos[away] * cells[middle - away - 1], weight += lanczos[away];
        }
        sums[pixel] = sum;
        weights[pixel] = weight;
    }
}

/// The cells reduced to rows x cols pixels of whole grey levels, halves rounded up, within 0 to 255.
std::vector<std::int64_t> small_picture(const std::vector<std::uint32_t>& cells, std::size_t rows,
                                        std::size_t cols) {
    const std::size_t width = cells_per_bit * cols, height = cells_per_bit * rows;
    std::array<std::int64_t, most_side + 1> row_weights, col_weights, column, reduced;
    std::vector<std::int64_t> down(rows * width), pixels(rows * cols);
    std::vector<std::int64_t> one(height);
    for (std::size_t x = 0; x < width; ++x) {
        for (std::size_t y = 0; y < height; ++y) one[y] = cells[y * width + x];
        sum_near(one.data(), rows, column.data(), row_weights.data());
        for (std::size_t y = 0; y < rows; ++y) down[y * width + x] = column[y];
    }
    for (std::size_t y = 0; y < rows; ++y) {
        sum_near(down.data() + y * width, cols, reduced.data(), col_weights.data());
        for (std::size_t x = 0; x < cols; ++x) {
            const std::int64_t one_level =
                static_cast<std::int64_t>(grey_steps) * row_weights[y] * col_weights[x];
            const std::int64_t level = reduced[x] < 0 ? 0 : (2 * reduced[x] + one_level) / (2 * one_level);
            pixels[y * cols + x] = std::min<std::int64_t>(level, 255);
        }
    }
    return pixels;
}

bool difference_codes(const Picture& picture, std::size_t side, bool dihedral, std::vector<Code>& codes) {
    for (unsigned transposed = 0; transposed < (dihedral ? 2u : 1u); ++transposed) {
        const std::size_t rows = side + transposed, cols = side + 1 - transposed;
        const auto cells = mean_cells(picture, cells_per_bit * rows, cells_per_bit * cols);
        if (is_flat(cells)) return false;
        const auto pixels = small_picture(cells, rows, cols);
        for (unsigned way = 0; way < (dihedral ? 4u : 1u); ++way) {
            const auto pixel = [&](std::size_t u, std::size_t v) {
                if (way & 2) u = side - 1 - u;
                if (way & 1) v = side - v;
                return pixels[transposed ? v * cols + u : u * cols + v];
            };
            Code code{};
            for (std::size_t u = 0; u < side; ++u)
                for (std::size_t v = 0; v < side; ++v)
                    if (pixel(u, v + 1) > pixel(u, v)) set_bit(code, u * side + v);
            codes.push_back(code);
        }
    }
    return true;
}

}  // namespace

bool hash_picture(const Picture& picture, Kind kind, std::size_t side, bool dihedral, std::uint64_t* words) {
    std::vector<Code> codes;
    const bool structured = kind == Kind::dct ? dct_codes(picture, side, dihedral, codes)
                                              : difference_codes(picture, side, dihedral, codes);
    const Code code = structured ? *std::min_element(codes.begin(), codes.end()) : Code{};
    std::copy_n(code.begin(), side * side / 64, words);
    return structured;
}

}  // namespace pycurate::phash
