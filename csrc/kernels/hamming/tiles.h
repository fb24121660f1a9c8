#pragma once
// What differs between instruction sets: one tile of rows against columns.
#include <cstddef>
#include <cstdint>

namespace pycurate::hamming {

constexpr std::size_t tile_rows = 64, tile_cols = 256;

/// Codes by word: word w of row i stands at words[w * stride + i].
struct Planes {
    const std::uint64_t* words;
    std::size_t stride;
};

struct Hit {
    std::uint16_t row, col;
    std::uint32_t distance;
};

/// One entry per kernel; every instruction set fills the same table.
struct Kernels {
    /// Writes the pairs (i < rows, j < cols) of codes of `words` words that differ in at most `radius` bits
    /// and returns how many; only those with i < j where `upper`. rows <= tile_rows, cols <= tile_cols; hits:
    /// (rows * cols,). Reads not one word beyond either side.
    std::size_t (*near)(Planes a, std::size_t rows, Planes b, std::size_t cols, std::size_t words,
                        unsigned radius, bool upper, Hit* hits) noexcept;
};

extern const Kernels scalar, avx2, avx512vpopcntdq;

/// The one dispatch point of this family.
const Kernels& active_kernels() noexcept;

}  // namespace pycurate::hamming
