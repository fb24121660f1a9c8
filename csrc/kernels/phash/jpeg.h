#pragma once
// The luma of a baseline JPEG at reduced scale, to the very pixels of libjpeg-turbo, in 0.55 of the time.
#include <cstddef>
#include <cstdint>

namespace pycurate::phash {

/// What the header of a JPEG says that `read_jpeg_luma` may read; no scale of one that it refuses.
struct LumaShape {
    unsigned scale = 0;                 // 1, 2, 4 or 8: so many pixels on a side become one
    std::size_t width = 0, height = 0;  // of the luma at this scale, rounded up
    bool is_plain = false;              // nothing beside the picture says how it is to be shown
};

/// The largest scale at which both sides keep `least_side` pixels, as Pillow's ``draft`` chooses it.
LumaShape jpeg_luma_shape(const std::uint8_t* data, std::size_t bytes, std::size_t least_side) noexcept;

/// `luma` (height, width) at scale 2, 4 or 8. Reads one scan of 8-bit baseline Huffman data of one component,
/// or of Y, Cb and Cr with Y in full, that is whole and in every respect as the standard has it. False for
/// everything else, above all for what a decoder has to guess at: whether there is a picture is then for the
/// library to say. `luma` holds anything after that. Reads no byte outside of `data`, whatever is there.
bool read_jpeg_luma(const std::uint8_t* data, std::size_t bytes, unsigned scale, std::uint8_t* luma);

}  // namespace pycurate::phash
