#pragma once
// The inverse DCT of 8 x 8 coefficients to 4 x 4 or 2 x 2 pixels, in the integers of libjpeg.
#include <cstddef>
#include <cstdint>

namespace pycurate::phash {

// round(2^13 w) for the weight w of coefficient k in sample i of the first half, times the 2^1 (of 4 samples)
// or 2^2 (of 2) of what is kept of the block's scale; 0 for coefficients that these sizes leave out.
constexpr std::int32_t reduction_to_4[2][8]{{16384, 20995, 15137, 7373, 0, -4926, -6270, -4176},
                                            {16384, 8697, -15137, -17799, 0, 11893, 6270, -1730}};
constexpr std::int32_t reduction_to_2[8]{32768, 29692, 0, -10426, 0, 6967, 0, -5906};

/// Bits of these weights below the point: columns keep 2 of them, and pixels none, of which 3 are the scale.
constexpr unsigned reduction_bits(std::size_t size) { return size == 4 ? 14 : 15; }

// Beyond these a value is none of 8-bit samples. Within them all sums of the columns and, as columns stay
// below 2^14, of the rows are below 2^31, and vector code of 16-bit operands has the same values.
constexpr std::int32_t most_value = 4095, most_column = 16383;

}  // namespace pycurate::phash
