#include "kernels/hamming/hamming.h"

#include <algorithm>
#include <bit>
#include <random>
#include <string>
#include <vector>

#include "check.h"

namespace pycurate::tests {
namespace {

using namespace hamming;

/// (n, words) codes on the heap without a word to spare, a third of them near others.
std::unique_ptr<std::uint64_t[]> make_codes(std::size_t n, std::size_t words, std::uint64_t seed) {
    std::mt19937_64 engine(seed);
    auto codes = exact_buffer<std::uint64_t>(n * words);
    for (std::size_t i = 0; i < n * words; ++i) codes[i] = engine();
    for (std::size_t i = 1; i < n; i += 3) {
        const std::size_t other = engine() % i;
        for (std::size_t w = 0; w < words; ++w) codes[i * words + w] = codes[other * words + w];
        for (std::uint64_t flips = engine() % 6; flips > 0; --flips)
            codes[i * words + engine() % words] ^= std::uint64_t{1} << engine() % 64;
    }
    return codes;
}

unsigned distance(const std::uint64_t* x, const std::uint64_t* y, std::size_t words) {
    int sum = 0;
    for (std::size_t w = 0; w < words; ++w) sum += std::popcount(x[w] ^ y[w]);
    return static_cast<unsigned>(sum);
}

void tiles_equal_counting() {
    for (const std::size_t words : {1u, 2u, 4u})
        for (const std::size_t rows : {1u, 3u, 64u})
            for (const std::size_t cols : {1u, 4u, 7u, 8u, 9u, 31u, 33u, 64u, 256u}) {
                std::mt19937_64 engine(rows * cols);
                const auto a = exact_buffer<std::uint64_t>(words * rows),
                           b = exact_buffer<std::uint64_t>(words * cols);
                for (std::size_t i = 0; i < words * rows; ++i) a[i] = engine() & engine();
                for (std::size_t i = 0; i < words * cols; ++i) b[i] = engine() & engine();
                const auto hits = exact_buffer<Hit>(rows * cols);
                for (const bool upper : {false, true}) {
                    const auto radius = static_cast<unsigned>(24 * words);
                    const std::size_t found = active_kernels().near({a.get(), rows}, rows, {b.get(), cols},
                                                                    cols, words, radius, upper, hits.get());
                    std::size_t expected = 0;
                    bool same = true;
                    for (std::size_t i = 0; i < rows; ++i)
                        for (std::size_t j = upper ? i + 1 : 0; j < cols; ++j) {
                            int d = 0;
                            for (std::size_t w = 0; w < words; ++w)
                                d += std::popcount(a[w * rows + i] ^ b[w * cols + j]);
                            if (static_cast<unsigned>(d) > radius) continue;
                            same &= expected < found && hits[expected].row == i && hits[expected].col == j &&
                                    hits[expected].distance == static_cast<unsigned>(d);
                            ++expected;
                        }
                    check(same && found == expected, "a tile of " + std::to_string(rows) + " x " +
                                                         std::to_string(cols) + " codes of " +
                                                         std::to_string(words) + " words");
                }
            }
}

void every_plan_finds_every_pair_once() {
    for (const std::size_t words : {1u, 4u})
        for (const std::size_t n : {0u, 1u, 2u, 65u, 700u}) {
            const auto codes = make_codes(n, words, n);
            for (const unsigned radius : {0u, 3u, 9u}) {
                std::vector<Pair> expected;
                for (std::uint32_t i = 0; i < n; ++i)
                    for (std::uint32_t j = i + 1; j < n; ++j)
                        if (const unsigned d = distance(&codes[i * words], &codes[j * words], words);
                            d <= radius)
                            expected.push_back({i, j, d});
                for (const int bands : {-1, 0, 1, 2, static_cast<int>(radius) + 1}) {
                    if (bands > static_cast<int>(radius) + 1) continue;
                    std::vector<Pair> found;
                    bool too_many = false;
                    const auto plan = plan_bands(n, n, true, words, radius, bands);
                    check(pairs_within({codes.get(), n}, nullptr, words, radius, plan, 1'000'000, found,
                                       too_many, 3, {}) &&
                              !too_many,
                          "a join ends");
                    bool same = found.size() == expected.size();
                    for (std::size_t p = 0; same && p < found.size(); ++p)
                        same = found[p].row == expected[p].row && found[p].col == expected[p].col &&
                               found[p].distance == expected[p].distance;
                    check(same, std::to_string(bands) + " bands, radius " + std::to_string(radius));
                }
            }
        }
}

void threads_of_components_and_nearest() {
    constexpr std::size_t n = 3000;
    const auto codes = make_codes(n, 1, 7);
    const auto ranks = exact_buffer<std::uint32_t>(n);
    for (std::size_t i = 0; i < n; ++i) ranks[i] = static_cast<std::uint32_t>((i * 7) % n);
    const auto plan = plan_bands(n, n, true, 1, 12, 3);
    std::vector<std::int64_t> labels[2], best[2];
    std::vector<std::int32_t> distances[2];
    for (std::size_t i = 0; i < 2; ++i) {
        labels[i].resize(n), best[i].resize(n), distances[i].resize(n);
        check(components_within({codes.get(), n}, 1, 12, plan, labels[i].data(), 1 + 3 * i, {}),
              "components");
        check(nearest_earlier({codes.get(), n}, nullptr, 1, 12, plan, ranks.get(), nullptr, best[i].data(),
                              distances[i].data(), 1 + 3 * i, {}),
              "nearest");
    }
    check(labels[0] == labels[1] && best[0] == best[1] && distances[0] == distances[1],
          "threads change nothing");
}

/// Two sides of different length, against every pair of them; one set of a forest has one lowest row.
void two_blocks_meet() {
    constexpr std::size_t a_rows = 90, b_rows = 133, rows = a_rows + b_rows;
    constexpr unsigned radius = 6;
    for (const std::size_t words : {1u, 4u}) {
        const auto codes = make_codes(rows, words, words);
        const auto a = exact_buffer<std::uint64_t>(a_rows * words),
                   b = exact_buffer<std::uint64_t>(b_rows * words);
        for (std::size_t i = 0; i < rows * words; ++i)
            (i < a_rows * words ? a[i] : b[i - a_rows * words]) = codes[i];
        const auto ranks = exact_buffer<std::uint32_t>(a_rows), b_ranks = exact_buffer<std::uint32_t>(b_rows);
        for (std::uint32_t i = 0; i < a_rows; ++i) ranks[i] = 3 * i % 200;
        for (std::uint32_t j = 0; j < b_rows; ++j) b_ranks[j] = 5 * j % 133;
        const Codes left{a.get(), a_rows}, right{b.get(), b_rows};
        const auto best = exact_buffer<std::int64_t>(a_rows), joined = exact_buffer<std::int64_t>(rows);
        const auto distances = exact_buffer<std::int32_t>(a_rows), levels = exact_buffer<std::int32_t>(rows);
        for (const int bands : {-1, 0, 3}) {
            const auto plan = plan_bands(a_rows, b_rows, false, words, radius, bands);
            check(nearest_earlier(left, &right, words, radius, plan, ranks.get(), b_ranks.get(), best.get(),
                                  distances.get(), 2, {}),
                  "nearest of another block");
            for (std::size_t i = 0; i < a_rows; ++i) {
                std::int64_t rank = -1, near = -1;
                for (std::size_t j = 0; j < b_rows; ++j) {
                    const std::int64_t d = distance(&a[i * words], &b[j * words], words);
                    if (d > radius || b_ranks[j] >= ranks[i]) continue;
                    if (rank < 0 || d < near || (d == near && b_ranks[j] < rank)) rank = b_ranks[j], near = d;
                }
                check(best[i] == rank && distances[i] == near, "row " + std::to_string(i));
            }
            check(linkage_within(left, &right, words, radius, bands, joined.get(), levels.get(), 2, {}),
                  "linkage");
            for (unsigned level = 0; level <= radius; ++level) {
                std::vector<std::size_t> labels(rows);
                for (std::size_t i = 0; i < rows; ++i) labels[i] = i;
                for (std::size_t i = 0; i < a_rows; ++i)
                    for (std::size_t j = 0; j < b_rows; ++j)
                        if (distance(&a[i * words], &b[j * words], words) <= level) {
                            const auto low = std::min(labels[i], labels[a_rows + j]);
                            const auto high = std::max(labels[i], labels[a_rows + j]);
                            for (auto& label : labels)
                                if (label == high) label = low;
                        }
                for (std::size_t i = 0; i < rows; ++i)
                    check((joined[i] >= 0 && levels[i] <= static_cast<int>(level)) == (labels[i] != i),
                          "row " + std::to_string(i) + " is joined at " + std::to_string(level));
            }
        }
    }
}

void copies_of_a_code() {
    constexpr std::size_t n = 5000;
    const auto codes = exact_buffer<std::uint64_t>(2 * n);
    for (std::size_t i = 0; i < n; ++i) codes[2 * i] = i % 3, codes[2 * i + 1] = i % 7;
    const auto copy_of = exact_buffer<std::int64_t>(n);
    check(find_copies({codes.get(), n}, 2, copy_of.get(), 2, {}), "copies");
    for (std::size_t i = 0; i < n; ++i)
        check(copy_of[i] == (i < 21 ? -1 : static_cast<std::int64_t>(i % 21)), "copy " + std::to_string(i));
}

const Test tests[] = {
    {"hamming: tiles equal counting", tiles_equal_counting},
    {"hamming: every plan finds every pair once", every_plan_finds_every_pair_once},
    {"hamming: threads of components and nearest rows", threads_of_components_and_nearest},
    {"hamming: two blocks meet", two_blocks_meet},
    {"hamming: copies of a code", copies_of_a_code},
};

}  // namespace
}  // namespace pycurate::tests
