// What a device's sweeps share with the host: the walk over a block, whose sums keep the CPU's order, and
// passes over the labels of a row.
#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "check.h"
#include "cuda/block_order.h"
#include "kernels/graph/labelled.h"

namespace pycurate::tests {
namespace {

using namespace cuda;

constexpr std::uint32_t threads = 256;  // sweep_threads

/// As walk_block and add_chains do it: threads of a tile in any order, here from the last.
std::vector<double> sums_of(const std::vector<double>& values, std::uint32_t period) {
    std::vector<double> sums(period, 0.0);
    std::uint32_t tile = 0;
    const auto all = static_cast<std::uint32_t>(values.size());
    for (std::uint32_t begin = 0; begin < all; begin += tile_values, ++tile) {
        const std::uint32_t count = std::min(tile_values, all - begin);
        for (std::uint32_t thread = threads; thread-- > 0;)
            for (std::uint32_t chain = first_chain(thread, tile, threads); chain < chains_of(count, period);
                 chain += threads) {
                double& sum = sums[sum_of_chain(begin, chain, period)];
                for (std::uint32_t at = chain; at < count; at += period) sum += values[begin + at];
            }
    }
    return sums;
}

void sums_over_a_block_keep_their_order() {
    std::mt19937_64 engine(3);
    for (const std::uint32_t width :
         {16u, 32u, 48u, 112u, 240u, 256u, 272u, 1008u, 2032u, 2048u, 2064u, 5008u})
        for (const std::uint32_t rows : {1u, 2u, 7u, 100u}) {
            std::vector<double> values(std::size_t{rows} * width);
            // Of sizes so different that any other order of a sum gives other bits.
            for (double& value : values)
                value = std::ldexp(1.0 + 1e-3 * static_cast<double>(engine() % 1000),
                                   static_cast<int>(engine() % 120) - 60);
            for (const std::uint32_t period : {16u, width}) {
                std::vector<double> expected(period, 0.0);
                for (std::size_t at = 0; at < values.size(); ++at) expected[at % period] += values[at];
                check(sums_of(values, period) == expected, "rows " + std::to_string(rows) + " of " +
                                                               std::to_string(width) + ", period " +
                                                               std::to_string(period));
            }
        }
}

void heavy_rows_are_found() {
    std::mt19937 engine(6);
    for (const std::size_t rows : {std::size_t{0}, std::size_t{1}, std::size_t{63}, std::size_t{1000}})
        for (const std::size_t heavy : {std::size_t{0}, std::size_t{1}, rows / heavy_share + 1, rows}) {
            if (heavy > rows) continue;
            std::vector<std::uint64_t> indptr{100};  // as of a part of the rows
            std::vector<std::uint32_t> expected;
            for (std::size_t i = 0; i < rows; ++i) {
                const bool many =
                    i % (rows / std::max<std::size_t>(heavy, 1)) == 0 && expected.size() < heavy;
                if (many) expected.push_back(static_cast<std::uint32_t>(i));
                indptr.push_back(indptr.back() +
                                 (many ? heavy_edges + 1 + engine() % 9 : engine() % (heavy_edges + 1)));
            }
            if (heavy > rows / heavy_share + 1) expected.clear();
            const std::vector<std::uint32_t> found = heavy_rows(indptr.data(), rows);
            check(found == expected, std::to_string(heavy) + " heavy rows of " + std::to_string(rows));
            for (std::uint32_t place = 0; place < found.size(); ++place)
                check(place_among(found.data(), static_cast<std::uint32_t>(found.size()), found[place]) ==
                          place,
                      "a heavy row's place");
        }
}

void every_label_has_one_pass() {
    std::mt19937 engine(4);
    for (std::uint32_t passes = 1; passes != 0 && passes <= 1u << 20; passes *= 2)
        for (int i = 0; i < 200; ++i) {
            const std::uint32_t label = i == 0   ? 0u
                                        : i == 1 ? graph::no_label - 1
                                                 : static_cast<std::uint32_t>(engine());
            std::uint32_t met = 0;
            for (std::uint32_t pass = 0; pass < std::min(passes, 64u); ++pass)
                met += in_pass(label, pass, passes) ? 1u : 0u;
            check(met == (label % passes < 64 ? 1u : 0u), "a label in one pass of " + std::to_string(passes));
        }
}

void the_largest_of_several_passes_are_those_of_one() {
    std::mt19937 engine(5);
    for (const std::size_t kept : {std::size_t{1}, std::size_t{3}, std::size_t{8}})
        for (int round = 0; round < 50; ++round) {
            std::vector<graph::Labelled> all;
            for (std::uint32_t label = 0; label < 40; ++label)
                all.push_back(
                    {label, static_cast<float>(engine() % 7) - 1.0f});  // ties, zeros, negative ones
            std::vector<graph::Labelled> expected = all;
            std::stable_sort(expected.begin(), expected.end(),
                             [](const auto& a, const auto& b) { return a.value > b.value; });
            for (const std::uint32_t passes : {1u, 2u, 16u, 64u}) {
                std::vector<graph::Labelled> out(kept, {graph::no_label, 0.0f});
                for (std::uint32_t pass = 0; pass < passes; ++pass) {
                    std::shuffle(all.begin(), all.end(), engine);
                    for (const auto& item : all)
                        if (in_pass(item.label, pass, passes)) graph::insert(out.data(), kept, item);
                }
                bool same = true;
                for (std::size_t k = 0; k < kept; ++k)
                    same &= expected[k].value > 0.0f
                                ? out[k].label == expected[k].label && out[k].value == expected[k].value
                                : out[k].label == graph::no_label;
                check(same,
                      "the largest " + std::to_string(kept) + " in " + std::to_string(passes) + " passes");
            }
        }
}

const Test tests[] = {
    {"cuda: sums over a block keep their order", sums_over_a_block_keep_their_order},
    {"cuda: heavy rows are found", heavy_rows_are_found},
    {"cuda: every label has one pass", every_label_has_one_pass},
    {"cuda: the largest of several passes are those of one", the_largest_of_several_passes_are_those_of_one}};

}  // namespace
}  // namespace pycurate::tests
