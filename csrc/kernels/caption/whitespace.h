#pragma once
#include <cstddef>
#include <cstdint>

namespace pycurate::caption {

// Must not be called in a file compiled for a stronger instruction set: the linker may keep that file's copy.

/// Bytes of the whitespace character at `p`, of which `left` > 0 bytes are text; 0 where there is none.
inline std::size_t whitespace(const std::uint8_t* p, std::size_t left) noexcept {
    const std::uint8_t first = p[0];
    if (first < 0x80) return (first >= 0x09 && first <= 0x0D) || (first >= 0x1C && first <= 0x20);
    if (first == 0xC2) return left >= 2 && (p[1] == 0x85 || p[1] == 0xA0) ? 2 : 0;
    if (first < 0xE1 || first > 0xE3 || left < 3) return 0;
    const std::uint8_t second = p[1], third = p[2];
    bool found = false;
    if (first == 0xE1) found = second == 0x9A && third == 0x80;  // U+1680
    if (first == 0xE2 && second == 0x80)                         // U+2000 to U+200A, U+2028, U+2029, U+202F
        found = (third >= 0x80 && third <= 0x8A) || third == 0xA8 || third == 0xA9 || third == 0xAF;
    if (first == 0xE2 && second == 0x81) found = third == 0x9F;  // U+205F
    if (first == 0xE3) found = second == 0x80 && third == 0x80;  // U+3000
    return found ? 3 : 0;
}

}  // namespace pycurate::caption
