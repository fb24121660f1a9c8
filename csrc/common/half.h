#pragma once
#include <bit>
#include <cstdint>

namespace pycurate {

/// IEEE 754 binary16 as its bits: 1 sign, 5 exponent, 10 mantissa.
struct Float16 {
    std::uint16_t bits;
};
/// The upper half of a float32: 1 sign, 8 exponent, 7 mantissa.
struct BFloat16 {
    std::uint16_t bits;
};

// The functions below must not be called in a file compiled for a stronger instruction set: the linker may
// keep that file's copy of an inline function for everyone.

/// Exact; a signalling NaN becomes quiet and keeps its payload.
inline float widen(Float16 half) noexcept {
    const std::uint32_t sign = (half.bits & 0x8000u) << 16;
    const std::uint32_t exponent = (half.bits >> 10) & 0x1fu, mantissa = half.bits & 0x3ffu;
    if (exponent == 0x1fu) {
        const std::uint32_t quiet = mantissa != 0 ? 0x00400000u : 0u;
        return std::bit_cast<float>(sign | 0x7f800000u | quiet | mantissa << 13);
    }
    if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
        const float value = static_cast<float>(mantissa) * 0x1p-24f;
        return sign != 0 ? -value : value;
    }
    return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

/// Exact; a signalling NaN becomes quiet and keeps its payload.
inline float widen(BFloat16 half) noexcept {
    const std::uint32_t bits = static_cast<std::uint32_t>(half.bits) << 16;
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return std::bit_cast<float>(is_nan ? bits | 0x00400000u : bits);
}

/// Round to nearest, ties to even; a NaN stays a NaN, quiet, with the upper bits of its payload.
inline Float16 narrow_to_float16(float value) noexcept {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value), magnitude = bits & 0x7fffffffu;
    const std::uint32_t sign = (bits >> 16) & 0x8000u;
    std::uint32_t half;
    if (magnitude > 0x7f800000u) {
        half = 0x7e00u | (magnitude >> 13 & 0x3ffu);
    } else if (magnitude >= 0x47800000u) {  // 65536 and more, infinity included
        half = 0x7c00u;
    } else if (magnitude < 0x38800000u) {
        // Below 2^-14 the unit is 2^-24: adding 0.5, whose unit is 2^-24 too, lets the addition round.
        const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
        half = std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u;
    } else {
        half =
            (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;  // a carry may reach infinity
    }
    return {static_cast<std::uint16_t>(sign | half)};
}

/// Round to nearest, ties to even; a NaN stays a NaN, quiet, with the upper bits of its payload.
inline BFloat16 narrow_to_bfloat16(float value) noexcept {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const std::uint32_t half = is_nan ? bits >> 16 | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return {static_cast<std::uint16_t>(half)};
}

}  // namespace pycurate
