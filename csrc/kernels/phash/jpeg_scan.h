#pragma once
// The entropy coded part of a baseline JPEG: Huffman tables that look ahead, and a reader of bits.
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/phash/jpeg_header.h"

namespace pycurate::phash {

/// What the next bits of a scan mean: a run of zeros and the coefficient after it.
struct Symbol {
    std::int16_t value;
    std::uint8_t run;
    std::uint8_t bits;  // 0: none
};

/// `zigzag`, and for places after a block, where only zeros are written, its last.
constexpr std::array<std::uint8_t, 256 + block_size> places = [] {
    std::array<std::uint8_t, 256 + block_size> made{};
    for (std::size_t k = 0; k < made.size(); ++k) made[k] = zigzag[k < block_size ? k : block_size - 1];
    return made;
}();

/// A run that ends a block; another one that leads out of it is damage.
constexpr std::uint8_t end_of_block = 128;

/// Bits of one stretch of a scan, the highest of each byte first, with zeros after its end.
class BitReader {
  public:
    static constexpr std::size_t padding = 8;
    static constexpr unsigned at_hand = 56;  // bits, after a refill

    /// `bytes` without stuffing; `padding` bytes after them may be read.
    BitReader(const std::uint8_t* data, std::size_t bytes) noexcept : data_(data), bytes_(bytes) {}

    void refill() noexcept {
        if (at_ <= bytes_) [[likely]] {
            std::uint64_t next;
            std::memcpy(&next, data_ + at_, sizeof next);
            if constexpr (std::endian::native == std::endian::little) next = __builtin_bswap64(next);
            bits_ |= next >> count_;
        }
        at_ += (63 - count_) >> 3;
        count_ |= 56;
    }
    std::uint64_t bits() const noexcept { return bits_; }
    void drop(unsigned count) noexcept {
        bits_ <<= count;
        count_ -= count;
    }
    bool read_beyond() const noexcept { return consumed() > 8 * bytes_; }
    /// Nothing but the bits that fill the last byte are left.
    bool at_end() const noexcept { return !read_beyond() && 8 * bytes_ - consumed() < 8; }

  private:
    std::size_t consumed() const noexcept { return 8 * at_ - count_; }

    const std::uint8_t* data_;
    std::size_t bytes_, at_ = 0;
    std::uint64_t bits_ = 0;
    unsigned count_ = 0;
};

/// Codes by the bits that follow: a code and its value in one look-up where both fit in `look_ahead` bits.
class HuffmanTable {
  public:
    HuffmanTable(const HuffmanSpec& spec, bool is_ac, unsigned look_ahead);

    /// Of the highest bits of `bits`; no bits where no code begins with them.
    Symbol next(std::uint64_t bits) const noexcept {
        const Symbol entry = entries_[bits >> unseen_];
        if (entry.bits < value_follows) [[likely]]
            return entry;
        return entry.bits == long_code ? long_symbol(bits) : with_value(entry, bits);
    }
    /// The same as one look-up has it: a symbol, and how many bits of its value follow. No bits for a long
    /// code.
    struct Split {
        Symbol symbol;
        unsigned value_bits;
    };
    Split split(std::uint64_t bits) const noexcept {
        const Symbol entry = entries_[bits >> unseen_];
        if (entry.bits < value_follows) return {entry, 0};
        if (entry.bits == long_code) return {{0, 0, 0}, 0};
        return {{0, entry.run, static_cast<std::uint8_t>(entry.bits - value_follows)},
                static_cast<unsigned>(entry.value)};
    }

  private:
    // Of an entry's `bits`: added where `value` is how many bits of a value follow; and alone for a code of
    // more than `look_ahead` bits.
    static constexpr std::uint8_t value_follows = 64, long_code = 128;

    static Symbol with_value(Symbol symbol, std::uint64_t bits) noexcept;
    Symbol entry_of(std::uint8_t coded, unsigned length) const noexcept;
    Symbol long_symbol(std::uint64_t bits) const noexcept;

    HuffmanSpec spec_;
    bool is_ac_;
    unsigned unseen_;  // 64 - look_ahead
    std::vector<Symbol> entries_;
    std::array<std::int32_t, 17> first_code_{}, first_symbol_{};
};

/// The coefficients of a block but the first, two in one look-up where both fit: a look-up waits for the one
/// before it, and takes as long however much it yields.
class CoefficientTable {
  public:
    explicit CoefficientTable(const HuffmanSpec& spec);

    /// Those of the next block, written to their places in `block` (64,), which is zeros; or, not `keep`,
    /// passed over. False where they are none.
    template <bool keep>
    bool read(BitReader& reader, std::int16_t* block) const noexcept;

  private:
    /// Two coefficients; or one, its value here or in the bits after its code; or the end of the block.
    struct Pair {
        std::int16_t first, second;
        std::uint8_t run, step;         // to the place of the first, and from there to that of the second
        std::uint8_t bits, value_bits;  // of all of it; 0: a code too long for the look-up, or none
    };
    // 8 KiB of pairs, built in 3 us; twice as many are read no faster.
    static constexpr unsigned look_ahead = 10;

    HuffmanTable codes_;
    std::array<Pair, std::size_t{1} << look_ahead> pairs_;
};

/// The coefficient that the highest `count` bits stand for, at most 15; 0 of none.
inline std::int32_t value_after(std::uint64_t bits, unsigned count) noexcept {
    const auto value = static_cast<std::int32_t>(bits >> 1 >> (63 - count));
    const auto if_negative = static_cast<std::int32_t>(bits >> 63) - 1;  // all ones
    return value - (if_negative & ((1 << count) - 1));
}

/// The bytes of a scan between its markers, one stretch at a time.
class ScanBytes {
  public:
    ScanBytes(const std::uint8_t* at, const std::uint8_t* end) noexcept : at_(at), end_(end) {}

    /// The next stretch, without stuffing, and the marker that ends it. False where no marker follows.
    bool next(std::vector<std::uint8_t>& stretch, std::uint8_t& marker);

  private:
    const std::uint8_t *at_, *end_;
};

/// No branch asks what an entry holds: a block has about twenty, and what they are is not to be foreseen.
/// Inlined so that the reader stays in registers from block to block.
template <bool keep>
[[gnu::always_inline]] inline bool CoefficientTable::read(BitReader& reader,
                                                          std::int16_t* block) const noexcept {
    unsigned k = 1;
    for (;;) {
        reader.refill();
        // A code of the look-up and its value have at most 20 bits: two of them between refills.
        for (int twice = 0; twice < 2; ++twice) {
            const std::uint64_t ahead = reader.bits();
            const Pair pair = pairs_[ahead >> (64 - look_ahead)];
            if (pair.bits == 0) [[unlikely]] {
                reader.refill();
                const Symbol symbol = codes_.next(reader.bits());
                reader.drop(symbol.bits);
                k += symbol.run;
                if (k >= block_size || symbol.bits == 0) return symbol.bits != 0 && k >= end_of_block;
                if constexpr (keep) block[zigzag[k]] = symbol.value;
                if (++k == block_size) return true;
                break;
            }
            const unsigned first = k + pair.run, second = first + pair.step;
            if constexpr (keep) {
                block[places[second]] = pair.second;  // where there is none, at the place of the first
                block[places[first]] = static_cast<std::int16_t>(
                    pair.first + value_after(ahead << (pair.bits - pair.value_bits), pair.value_bits));
            }
            k = second + 1;
            if (k < block_size) {
                reader.drop(pair.bits);
                continue;
            }
            if (first == block_size - 1) {  // the second is of the next block
                reader.drop(codes_.next(ahead).bits);
                return true;
            }
            reader.drop(pair.bits);
            return first >= end_of_block ||
                   (first < block_size && (k == block_size || second >= end_of_block));
        }
    }
}

}  // namespace pycurate::phash
