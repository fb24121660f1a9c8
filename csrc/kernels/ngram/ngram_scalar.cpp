#include <algorithm>

#include "kernels/ngram/ngram.h"

namespace pycurate::ngram {
namespace {

void min_hash(const std::uint64_t* hashes, std::size_t count, const std::uint64_t* a, const std::uint64_t* b,
              std::size_t permutations, std::uint32_t* out) noexcept {
    for (std::size_t j = 0; j < permutations; ++j) {
        std::uint64_t least = ~std::uint64_t{0};
        for (std::size_t i = 0; i < count; ++i) least = std::min(least, a[j] * (hashes[i] >> 32) + b[j]);
        out[j] = static_cast<std::uint32_t>(least >> 32);
    }
}

}  // namespace

extern const Kernels scalar{min_hash};

}  // namespace pycurate::ngram
