#include "kernels/uid/uid.h"

namespace pycurate::uid {
namespace {

struct NibbleTable {
    std::uint8_t of[256];  // 0 to 15; 255 where the byte is not a hex digit
};

constexpr NibbleTable make_nibbles() {
    NibbleTable table{};
    for (auto& nibble : table.of) nibble = 255;
    for (int i = 0; i < 10; ++i) table.of['0' + i] = static_cast<std::uint8_t>(i);
    for (int i = 0; i < 6; ++i) table.of['a' + i] = table.of['A' + i] = static_cast<std::uint8_t>(10 + i);
    return table;
}

constexpr NibbleTable nibbles = make_nibbles();

/// The value of 16 hex digits; `bad` gets a bit above 15 when one is none.
std::uint64_t parse_word(const char* text, unsigned& bad) noexcept {
    std::uint64_t word = 0;
    for (int i = 0; i < 16; ++i) {
        const std::uint8_t nibble = nibbles.of[static_cast<unsigned char>(text[i])];
        bad |= nibble;
        word = word << 4 | (nibble & 15u);
    }
    return word;
}

std::size_t parse_hex(const char* text, std::size_t n, Uid* out) noexcept {
    for (std::size_t i = 0; i < n; ++i, text += 32) {
        unsigned bad = 0;
        out[i] = {parse_word(text, bad), parse_word(text + 16, bad)};
        if (bad > 15) return i;
    }
    return n;
}

void format_word(std::uint64_t word, char* text) noexcept {
    for (int i = 0; i < 16; ++i) text[i] = "0123456789abcdef"[word >> (60 - 4 * i) & 15];
}

void format_hex(const Uid* uids, std::size_t n, char* text) noexcept {
    for (std::size_t i = 0; i < n; ++i, text += 32) {
        format_word(uids[i].high, text);
        format_word(uids[i].low, text + 16);
    }
}

}  // namespace

extern const Kernels scalar{parse_hex, format_hex};

}  // namespace pycurate::uid
