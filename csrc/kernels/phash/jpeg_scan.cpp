#include "kernels/phash/jpeg_scan.h"

namespace pycurate::phash {

HuffmanTable::HuffmanTable(const HuffmanSpec& spec, bool is_ac, unsigned look_ahead)
    : spec_(spec),
      is_ac_(is_ac),
      unseen_(64 - look_ahead),
      entries_(std::size_t{1} << look_ahead, {0, 0, long_code}) {
    std::uint64_t code = 0;
    std::size_t symbol = 0;
    for (unsigned length = 1; length <= 16; ++length) {
        first_code_[length] = static_cast<std::int32_t>(code);
        first_symbol_[length] = static_cast<std::int32_t>(symbol);
        for (unsigned i = 0; i < spec.counts[length]; ++i, ++code, ++symbol) {
            if (length > look_ahead) continue;
            const unsigned spare = look_ahead - length;
            const Symbol entry = entry_of(spec.symbols[symbol], length);
            const bool fits = entry.bits >= value_follows && static_cast<unsigned>(entry.value) <= spare;
            for (std::uint64_t at = code << spare; at < (code + 1) << spare; ++at)
                entries_[at] = fits ? with_value(entry, at << unseen_) : entry;
        }
        code *= 2;
    }
}

Symbol HuffmanTable::with_value(Symbol symbol, std::uint64_t bits) noexcept {
    const auto value_bits = static_cast<unsigned>(symbol.value);
    const unsigned code_bits = symbol.bits - value_follows + 0u;
    symbol.value = static_cast<std::int16_t>(value_after(bits << code_bits, value_bits));
    symbol.bits = static_cast<std::uint8_t>(code_bits + value_bits);
    return symbol;
}

/// A code of `length` bits, its value not yet read; no bits for symbols that no baseline file has.
Symbol HuffmanTable::entry_of(std::uint8_t coded, unsigned length) const noexcept {
    const unsigned run = is_ac_ ? coded >> 4 : 0, value_bits = is_ac_ ? coded & 15 : coded;
    const auto bits = static_cast<std::uint8_t>(length);
    if (value_bits > (is_ac_ ? most_ac_bits : most_dc_bits)) return {0, 0, 0};
    if (value_bits > 0)
        return {static_cast<std::int16_t>(value_bits), static_cast<std::uint8_t>(run),
                static_cast<std::uint8_t>(bits + value_follows)};
    if (!is_ac_) return {0, 0, bits};
    if (run == 0) return {0, end_of_block, bits};
    if (run == 15) return {0, 15, bits};  // sixteen zeros: fifteen, and a coefficient of 0
    return {0, 0, 0};
}

Symbol HuffmanTable::long_symbol(std::uint64_t bits) const noexcept {
    for (unsigned length = 64 - unseen_ + 1; length <= 16; ++length) {
        const auto place = static_cast<std::int32_t>(bits >> (64 - length)) - first_code_[length];
        if (place < 0 || place >= spec_.counts[length]) continue;
        const Symbol entry =
            entry_of(spec_.symbols[static_cast<std::size_t>(first_symbol_[length] + place)], length);
        return entry.bits >= value_follows ? with_value(entry, bits) : entry;
    }
    return {0, 0, 0};
}

CoefficientTable::CoefficientTable(const HuffmanSpec& spec) : codes_(spec, true, look_ahead) {
    for (std::uint64_t i = 0; i < pairs_.size(); ++i) {
        const std::uint64_t bits = i << (64 - look_ahead);
        const HuffmanTable::Split first = codes_.split(bits);
        const unsigned first_bits = first.symbol.bits + first.value_bits;
        pairs_[i] = {first.symbol.value,
                     0,
                     first.symbol.run,
                     0,
                     static_cast<std::uint8_t>(first_bits),
                     static_cast<std::uint8_t>(first.value_bits)};
        if (first_bits == 0 || first.value_bits > 0 || first.symbol.run == end_of_block) continue;
        const HuffmanTable::Split second = codes_.split(bits << first_bits);
        if (second.value_bits > 0 || second.symbol.bits == 0 || first_bits + second.symbol.bits > look_ahead)
            continue;
        pairs_[i].second = second.symbol.value;
        pairs_[i].step = static_cast<std::uint8_t>(1 + second.symbol.run);
        pairs_[i].bits = static_cast<std::uint8_t>(first_bits + second.symbol.bits);
    }
}

bool ScanBytes::next(std::vector<std::uint8_t>& stretch, std::uint8_t& marker) {
    stretch.clear();
    while (at_ < end_) {
        const auto* found =
            static_cast<const std::uint8_t*>(std::memchr(at_, 0xff, static_cast<std::size_t>(end_ - at_)));
        if (found == nullptr || found + 1 == end_) return false;
        const bool is_stuffed = found[1] == 0;
        stretch.insert(stretch.end(), at_, found + is_stuffed);
        at_ = found + 2;
        if (is_stuffed) continue;
        marker = found[1];
        stretch.insert(stretch.end(), BitReader::padding, 0);
        return true;
    }
    return false;
}

}  // namespace pycurate::phash
