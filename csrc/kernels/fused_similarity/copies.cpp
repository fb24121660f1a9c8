// Rows with the same bits.
#include <algorithm>
#include <cstring>

#include "common/thread_pool.h"
#include "kernels/fused_similarity/fused_similarity.h"
#include "kernels/rowwise/similarity.h"

namespace pycurate::fused_similarity {
namespace {

/// A hash of a row's bytes; equal rows have equal hashes, and what has is compared byte by byte.
std::uint64_t hash_bytes(const char* bytes, std::size_t size) noexcept {
    constexpr std::uint64_t multipliers[4] = {0x9e3779b97f4a7c15u, 0xc2b2ae3d27d4eb4fu, 0x165667b19e3779f9u,
                                              0xd6e8feb86659fd93u};
    std::uint64_t lanes4[4] = {size, size ^ multipliers[1], size ^ multipliers[2], size ^ multipliers[3]};
    const auto mix = [&](std::size_t lane, std::uint64_t word) noexcept {
        std::uint64_t x = (lanes4[lane] ^ word) * multipliers[lane];
        lanes4[lane] = x ^ x >> 29;
    };
    std::size_t i = 0;
    std::uint64_t word;
    for (; i + 32 <= size; i += 32)
        for (std::size_t lane = 0; lane < 4; ++lane) {
            std::memcpy(&word, bytes + i + 8 * lane, 8);
            mix(lane, word);
        }
    for (std::size_t lane = 0; i < size; i += 8, lane = (lane + 1) % 4) {
        word = 0;
        std::memcpy(&word, bytes + i, std::min<std::size_t>(8, size - i));
        mix(lane, word);
    }
    std::uint64_t hash = 0;
    for (const std::uint64_t lane : lanes4) hash = (hash ^ lane) * multipliers[0], hash ^= hash >> 32;
    return hash;
}

}  // namespace

bool hash_rows(Matrix x, std::size_t n, std::size_t d, Element element, std::uint64_t* out,
               std::size_t threads, const Poll& poll) {
    const std::size_t row_bytes = d * rowwise::element_bytes(element);
    constexpr std::size_t block = 4096;
    return parallel_for((n + block - 1) / block, threads,
                        [&](std::size_t t) {
                            for (std::size_t i = t * block; i < std::min(n, (t + 1) * block); ++i)
                                out[i] = hash_bytes(static_cast<const char*>(x.data) +
                                                        static_cast<std::ptrdiff_t>(i) * x.row_stride,
                                                    row_bytes);
                        },
                        [&] { return poll && poll(0.0); });
}

bool find_copies(Matrix x, std::size_t n, std::size_t d, Element element, std::int64_t* copy_of,
                 std::size_t threads, const Poll& poll) {
    const std::size_t row_bytes = d * rowwise::element_bytes(element);
    const auto row = [&](std::size_t i) {
        return static_cast<const char*>(x.data) + static_cast<std::ptrdiff_t>(i) * x.row_stride;
    };
    struct Hashed {
        std::uint64_t hash, row;
    };
    std::vector<std::uint64_t> hashes(n);
    if (!hash_rows(x, n, d, element, hashes.data(), threads, poll)) return false;
    std::vector<Hashed> hashed(n);
    for (std::size_t i = 0; i < n; ++i) hashed[i] = {hashes[i], i};
    std::fill_n(copy_of, n, std::int64_t{-1});
    std::sort(hashed.begin(), hashed.end(), [](const Hashed& p, const Hashed& q) {
        return p.hash != q.hash ? p.hash < q.hash : p.row < q.row;
    });
    // Of rows with one hash nearly always the first is what the others copy; others are compared with every
    // one that turned out to be different.
    std::vector<std::size_t> firsts;
    for (std::size_t begin = 0; begin < n;) {
        std::size_t end = begin + 1;
        firsts.assign(1, hashed[begin].row);
        for (; end < n && hashed[end].hash == hashed[begin].hash; ++end) {
            const std::size_t i = hashed[end].row;
            const auto same = std::find_if(firsts.begin(), firsts.end(), [&](std::size_t first) {
                return std::memcmp(row(first), row(i), row_bytes) == 0;
            });
            if (same != firsts.end())
                copy_of[i] = static_cast<std::int64_t>(*same);
            else
                firsts.push_back(i);
        }
        begin = end;
    }
    return true;
}

}  // namespace pycurate::fused_similarity
