#pragma once
// A score and a number it comes with as one integer: larger is more similar, then of the lower number.
#include <bit>
#include <cstdint>

#include "common/host_device.h"

namespace pycurate::fused_similarity {

struct Ranked {
    /// Of no score: smaller than any.
    static constexpr std::uint64_t none = 0;
    PYCURATE_HOST_DEVICE static std::uint64_t of(float score, std::uint32_t number) noexcept {
        const auto bits = std::bit_cast<std::uint32_t>(score + 0.0f);  // -0 counts as 0
        const std::uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
        return static_cast<std::uint64_t>(ordered) << 32 | static_cast<std::uint32_t>(~number);
    }
    PYCURATE_HOST_DEVICE static float score(std::uint64_t ranked) noexcept {
        const auto ordered = static_cast<std::uint32_t>(ranked >> 32);
        return std::bit_cast<float>((ordered & 0x80000000u) != 0 ? ordered & 0x7fffffffu : ~ordered);
    }
    PYCURATE_HOST_DEVICE static std::uint32_t number(std::uint64_t ranked) noexcept {
        return ~static_cast<std::uint32_t>(ranked);
    }
};

}  // namespace pycurate::fused_similarity
