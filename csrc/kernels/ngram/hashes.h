#pragma once
#include <cstdint>

namespace pycurate::ngram {

// Must not be called in a file compiled for a stronger instruction set: the linker may keep that file's copy.

/// A bijection of 64 bits that spreads every bit over all: the finaliser of SplitMix64 (Steele et al. 2014).
inline std::uint64_t mix(std::uint64_t x) noexcept {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/// What a polynomial of tokens or of a band's values is evaluated at: odd, so that no bit is lost.
constexpr std::uint64_t base = 0x9e3779b97f4a7c15u;
/// A token's length times this starts its hash.
constexpr std::uint64_t length_factor = 0xc2b2ae3d27d4eb4fu;

}  // namespace pycurate::ngram
