#pragma once
// What a baseline JPEG says before its scan.
#include <array>
#include <cstddef>
#include <cstdint>

namespace pycurate::phash {

constexpr std::size_t block_size = 64;
constexpr unsigned most_dc_bits = 11, most_ac_bits = 10;  // of coefficients of 8-bit samples; DC: differences

/// Place in a block, row by row, of the k-th coefficient in the file.
constexpr std::array<std::uint8_t, block_size> zigzag{
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

/// How many codes there are of each length, and what they stand for, the shortest first.
struct HuffmanSpec {
    std::array<std::uint8_t, 17> counts{};  // of lengths 1 to 16
    std::array<std::uint8_t, 256> symbols{};
    bool defined = false;
};

struct Component {
    unsigned id, across, down, quantiser, dc, ac;  // across, down: its blocks in a minimum coded unit
};

struct JpegHeader {
    std::size_t width = 0, height = 0, restart_interval = 0;
    unsigned components = 0;
    std::array<Component, 3> component{};
    std::array<std::array<std::int16_t, block_size>, 4> quantisers{};  // row by row
    std::array<bool, 4> has_quantiser{};
    std::array<HuffmanSpec, 4> dc, ac;
    bool is_plain = true;  // no metadata but what JFIF asks for, and comments
    const std::uint8_t *scan = nullptr,
                       *end = nullptr;  // from the first byte of the scan to that of the file
};

/// False where the file is not one that `read_jpeg_luma` reads.
bool read_jpeg_header(const std::uint8_t* data, std::size_t bytes, JpegHeader& header);

}  // namespace pycurate::phash
