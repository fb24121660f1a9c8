#include "kernels/threshold/threshold.h"

namespace pycurate::threshold {
namespace {

template <class Key>
void count(const Key* values, const std::uint8_t* mask, std::size_t n, unsigned digit, std::uint64_t prefix,
           std::int64_t* counts) noexcept {
    constexpr unsigned bits = 8 * sizeof(Key);
    constexpr Key sign = Key{1} << (bits - 1);
    constexpr Key infinity =
        bits == 32 ? static_cast<Key>(0x7f80'0000u) : static_cast<Key>(0x7ff0'0000'0000'0000u);
    const unsigned shift = bits - 16 * (digit + 1);
    for (std::size_t i = 0; i < n; ++i) {
        const Key magnitude = values[i] & static_cast<Key>(sign - 1);
        const bool negative = values[i] > sign;  // -0 is not
        const Key key = negative ? static_cast<Key>(~values[i]) : magnitude | sign;
        const std::uint64_t digits = static_cast<std::uint64_t>(key) >> shift;
        if (magnitude <= infinity && (mask == nullptr || mask[i] != 0) && digits >> 16 == prefix)
            ++counts[digits & 0xffff];
    }
}

}  // namespace

extern const Kernels scalar{count<std::uint32_t>, count<std::uint64_t>};

void count_uid(const uid::Uid* uids, const std::uint8_t* mask, std::size_t n, unsigned digit, uid::Uid prefix,
               std::int64_t* counts) noexcept {
    const bool in_high = digit < 4;
    const unsigned shift = 48 - 16 * (digit % 4);
    // Shifted in two steps, as the first digit of a word leaves nothing of it and a shift by 64 is undefined.
    const std::uint64_t wanted = (in_high ? prefix.high : prefix.low) >> shift >> 16;
    for (std::size_t i = 0; i < n; ++i) {
        const std::uint64_t digits = (in_high ? uids[i].high : uids[i].low) >> shift;
        if ((mask == nullptr || mask[i] != 0) && digits >> 16 == wanted &&
            (in_high || uids[i].high == prefix.high))
            ++counts[digits & 0xffff];
    }
}

}  // namespace pycurate::threshold
