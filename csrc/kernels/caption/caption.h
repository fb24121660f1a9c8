#pragma once
#include <cstddef>
#include <cstdint>

namespace pycurate::caption {

/// One entry per kernel; every instruction set fills the same table.
struct Kernels {
    /// Words of one text: runs of characters other than whitespace, as Python's str.split() finds them.
    /// Whitespace is the 29 code points for which str.isspace() is true. text: `size` bytes of UTF-8, any
    /// alignment; where it is not valid UTF-8, a byte that begins no whitespace character belongs to a word.
    /// Reads not one byte beyond `size`.
    std::size_t (*count_words)(const std::uint8_t* text, std::size_t size) noexcept;
};

extern const Kernels scalar, avx2, avx512;

/// The one dispatch point of this family.
const Kernels& active_kernels() noexcept;

}  // namespace pycurate::caption
