#pragma once
// Perceptual hashes of decoded pictures. All of it is arithmetic on integers, or on integers in float64 below
// 2^53, so that every instruction set gives the same bits; pycurate/reference/phash.py says what they are.
#include <cstddef>
#include <cstdint>

namespace pycurate::phash {

/// One entry per kernel; every instruction set fills the same table.
struct Kernels {
    /// sums[x] += weight * grey[x], x < n; weight < 2^15.
    void (*add_weighted)(const std::uint8_t* grey, std::size_t n, std::uint32_t weight,
                         std::uint32_t* sums) noexcept;
    /// Grey of n pixels of 3 bytes (R, G, B), and of 4 (R, G, B, A) over white.
    void (*grey_of_rgb)(const std::uint8_t* pixels, std::size_t n, std::uint8_t* grey) noexcept;
    void (*grey_of_rgba)(const std::uint8_t* pixels, std::size_t n, std::uint8_t* grey) noexcept;
    /// out[u * count + v] = sum over i, j < size of cosines[i * count + u] * cells[i * size + j] *
    /// cosines[j * count + v]; count a multiple of 8, all sums below 2^53.
    void (*transform)(const double* cells, std::size_t size, const double* cosines, std::size_t count,
                      double* out) noexcept;
    /// Blocks of 8 x 8 coefficients (count, 64), row by row, as size x size pixels each, side by side in
    /// `size` rows of `out`; size 4 or 2; quantisers (64,) from 0 to 255, coefficients from -2,048 to 2,047.
    /// False where a value is none of 8-bit samples: decoders differ in what they make of it.
    bool (*reduce_blocks)(const std::int16_t* coefficients, std::size_t count, const std::int16_t* quantisers,
                          std::size_t size, std::uint8_t* out) noexcept;
};

extern const Kernels scalar, avx2;

/// The one dispatch point of this family.
const Kernels& active_kernels() noexcept;

/// Rows of 8-bit pixels of 1 (grey), 3 (RGB) or 4 (RGBA) adjacent channels, `row_stride` bytes apart; width
/// and height from 1 to 2^20.
struct Picture {
    const std::uint8_t* pixels;
    std::size_t width, height, channels;
    std::ptrdiff_t row_stride;
};

enum class Kind { dct, difference };

constexpr std::size_t most_side = 16;

/// The hash of side * side bits (side 8 or 16) into words (side * side / 64,), the first bit the highest of
/// word 0; with `dihedral` the smallest of those of the eight ways to lay the picture. False where the
/// picture has no structure to hash: then the words are 0.
bool hash_picture(const Picture& picture, Kind kind, std::size_t side, bool dihedral, std::uint64_t* words);

}  // namespace pycurate::phash
