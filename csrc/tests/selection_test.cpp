#include "kernels/selection/selection.h"

#include <algorithm>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"

namespace pycurate::tests {
namespace {

using namespace selection;

void dense_candidates() {
    for (const std::size_t n : {0u, 1u, 7u, 8u, 15u, 16u, 17u, 33u, 515u}) {
        std::mt19937_64 engine(n);
        std::uniform_real_distribution<float> uniform(0, 1);
        const auto similarities = exact_buffer<float>(n), covered = exact_buffer<float>(n);
        const auto weights = exact_buffer<double>(n);
        const auto representative = exact_buffer<std::uint32_t>(n);
        for (std::size_t i = 0; i < n; ++i) {
            similarities[i] = uniform(engine);
            covered[i] = uniform(engine);
            weights[i] = uniform(engine);
        }
        const std::string size = "n = " + std::to_string(n);
        const Kernels& kernels = active_kernels();
        for (const double* given :
             {static_cast<const double*>(nullptr), static_cast<const double*>(weights.get())}) {
            std::size_t better = 0, expected_better = 0;
            const double gain = kernels.gain(similarities.get(), covered.get(), given, n, &better);
            check(gain == scalar.gain(similarities.get(), covered.get(), given, n, &expected_better),
                  "gain, " + size);
            check(better == expected_better, "rows that gain, " + size);
            const auto rows = exact_buffer<std::uint32_t>(better);
            const auto collected = exact_buffer<float>(better);
            kernels.collect(similarities.get(), covered.get(), n, rows.get(), collected.get());
            std::size_t at = 0;
            for (std::size_t i = 0; i < n; ++i)
                if (similarities[i] > covered[i]) {
                    check(rows[at] == i && collected[at] == similarities[i], "collected, " + size);
                    ++at;
                }
        }
        check(kernels.valid(similarities.get(), n, false), "valid, " + size);
        for (const float wrong :
             {-1.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
            for (std::size_t i = 0; i < n; i += std::max<std::size_t>(1, n - 1)) {
                const float right = similarities[i];
                similarities[i] = wrong;
                check(!kernels.valid(similarities.get(), n, false), "not valid, " + size);
                check(kernels.valid(similarities.get(), n, true) == (wrong == -1.0f), "negative, " + size);
                similarities[i] = right;
            }
        const std::vector<float> before(covered.get(), covered.get() + n);
        kernels.cover(similarities.get(), 7, covered.get(), representative.get(), n);
        for (std::size_t i = 0; i < n; ++i) {
            check(covered[i] == std::max(before[i], similarities[i]), "covered, " + size);
            check(representative[i] == (similarities[i] > before[i] ? 7u : 0u), "representative, " + size);
        }
    }
}

/// A ring of 5 rows, each similar to the next by 0.5: two apart are picked first, ties to the lower.
void sparse_candidates() {
    constexpr std::size_t n = 5;
    const auto ends = exact_buffer<std::uint64_t>(n);
    const auto columns = exact_buffer<std::uint32_t>(n), selves = exact_buffer<std::uint32_t>(n);
    const auto similarities = exact_buffer<float>(n), own = exact_buffer<float>(n);
    for (std::uint32_t i = 0; i < n; ++i) {
        ends[i] = i + 1;
        columns[i] = i + 1 < n ? i + 1 : 0;
        selves[i] = i;
        similarities[i] = 0.5f;
        own[i] = 1;
    }
    const Edges edges{ends.get(), columns.get(), similarities.get(), selves.get(), own.get(), n, 0};
    const auto starts = exact_buffer<std::uint64_t>(n + 1), filled = exact_buffer<std::uint64_t>(n);
    count_entries(edges, starts.get() + 1);
    for (std::size_t c = 0; c < n; ++c) {
        starts[c + 1] += starts[c];
        filled[c] = starts[c];
    }
    check(starts[n] == 2 * n, "entries");
    const auto rows = exact_buffer<std::uint32_t>(2 * n);
    const auto placed = exact_buffer<float>(2 * n);
    check(place_entries(edges, starts.get(), filled.get(), rows.get(), placed.get()), "placed");
    const SparseCandidates all{starts.get(), filled.get(), rows.get(), placed.get(), n};
    const auto covered = exact_buffer<float>(n);
    const auto representative = exact_buffer<std::uint32_t>(n);
    const Rows state{covered.get(), representative.get(), nullptr, n};
    const auto gains = exact_buffer<double>(n), added = exact_buffer<double>(n);
    check(gains_of(all, state, nullptr, gains.get(), 2, {}), "gains");
    add_gains(edges, state, added.get());
    const auto candidates = exact_buffer<std::uint32_t>(n);
    const auto gained = exact_buffer<double>(n);
    for (std::size_t c = 0; c < n; ++c) check(gains[c] == 1.5 && added[c] == 1.5, "gain of the start");
    Picks picks{candidates.get(), gained.get(), 0};
    bool stopped = false;
    check(pick_greedily(all, state, gains.get(), nullptr, n, picks, stopped, {}) == n && !stopped, "picks");
    const std::uint32_t expected[] = {0, 2, 3, 1, 4};
    const double expected_gains[] = {1.5, 1.5, 1, 0.5, 0.5};
    for (std::size_t c = 0; c < n; ++c)
        check(candidates[c] == expected[c] && gained[c] == expected_gains[c], "pick " + std::to_string(c));
    check(objective(state) == 5, "objective");
}

const Test tests[] = {
    {"selection: dense candidates", dense_candidates},
    {"selection: sparse candidates", sparse_candidates},
};

}  // namespace
}  // namespace pycurate::tests
