#include <array>

#include "kernels/fused_similarity/tiles.h"

namespace pycurate::fused_similarity {
namespace {

Kernels with_screen(Kernels kernels, const Screen& screen) noexcept {
    kernels.screen = screen.tile;
    kernels.burn_bytes = screen.burn_bytes;
    kernels.halved_group = false;
    return kernels;
}

}  // namespace

std::span<const Kernels> kernels_of(Isa isa) noexcept {
    static const std::array avx512s{avx512, with_screen(avx512, avx512vnni)};
    static const std::array avx2s{avx2, with_screen(avx2, avxvnni)};
    switch (isa) {
        case Isa::avx512: return {avx512s.data(), __builtin_cpu_supports("avx512vnni") ? 2u : 1u};
        case Isa::avx2: return {avx2s.data(), __builtin_cpu_supports("avxvnni") ? 2u : 1u};
        case Isa::scalar: break;
    }
    return {&scalar, 1};
}

const Kernels& active_kernels() noexcept { return kernels_of(active_isa()).back(); }

}  // namespace pycurate::fused_similarity
