#include "kernels/votes/votes.h"

#include <cmath>
#include <map>
#include <random>
#include <string>

#include "check.h"

namespace pycurate::tests {
namespace {

using namespace votes;

struct Problem {
    std::size_t n, width;
    std::unique_ptr<std::int64_t[]> indices, nodes;
    std::unique_ptr<float[]> weights;
    std::unique_ptr<std::int32_t[]> labels;
    Lists lists() const { return {indices.get(), weights.get(), n, width, 0}; }
    Voters voters() const { return {labels.get(), n}; }
    Asked asked() const { return {nodes.get(), labels.get(), n}; }
};

Problem make(std::size_t n, std::size_t width, std::int32_t classes) {
    std::mt19937_64 engine(n * 31 + width);
    Problem made{n,
                 width,
                 exact_buffer<std::int64_t>(n * width),
                 exact_buffer<std::int64_t>(n),
                 exact_buffer<float>(n * width),
                 exact_buffer<std::int32_t>(n)};
    for (std::size_t e = 0; e < n * width; ++e) {
        made.indices[e] = static_cast<std::int64_t>(engine() % (n + 1)) - 1;
        made.weights[e] = static_cast<float>(engine() % 5) / 4.0f - 0.25f;
    }
    for (std::size_t i = 0; i < n; ++i) {
        made.nodes[i] = static_cast<std::int64_t>(i);
        made.labels[i] = static_cast<std::int32_t>(engine() % static_cast<std::uint64_t>(classes + 1)) - 1;
    }
    return made;
}

void votes_equal_a_map() {
    for (const std::size_t n : {0u, 1u, 5u, 1500u})
        for (const std::size_t width : {0u, 1u, 7u}) {
            const Problem p = make(n, width, 6);
            const auto labels = exact_buffer<std::int32_t>(n * 2), voters = exact_buffer<std::int32_t>(n);
            const auto shares = exact_buffer<float>(n * 2), own = exact_buffer<float>(n),
                       totals = exact_buffer<float>(n);
            const Votes out{labels.get(), shares.get(), 2, own.get(), totals.get(), voters.get()};
            check(cast_votes(p.lists(), p.voters(), p.asked(), out, 2, {}), "finishes");
            for (std::size_t i = 0; i < n; ++i) {
                std::map<std::int32_t, double> sums;
                std::int32_t count = 0;
                for (std::size_t e = i * width; e < (i + 1) * width; ++e) {
                    const auto j = p.indices[e];
                    if (j < 0 || j == static_cast<std::int64_t>(i) || p.labels[j] < 0 || p.weights[e] <= 0)
                        continue;
                    sums[p.labels[j]] += static_cast<double>(p.weights[e]);
                    ++count;
                }
                check(voters[i] == count, "voters of row " + std::to_string(i));
                std::int32_t best = -1;
                for (const auto& [label, weight] : sums)
                    if (best < 0 || weight > sums[best]) best = label;
                check(labels[i * 2] == best, "winner of row " + std::to_string(i));
            }
        }
}

void rounds_stay_in_their_part() {
    const std::size_t n = 1100, width = 9;
    const Problem p = make(n, width, 3);
    const auto members = exact_buffer<std::uint64_t>(n);
    for (std::size_t i = 0; i < n; ++i) members[i] = i % 3 == 0 ? 0 : std::uint64_t{1} << (i % 64);
    const auto flagged = exact_buffer<std::uint8_t>(n), judged = exact_buffer<std::uint8_t>(n);
    const auto scores = exact_buffer<float>(n * 64);
    check(round_votes(p.lists(), p.voters(), p.asked(), {members.get(), 0, 64, 4, true}, flagged.get(),
                      judged.get(), scores.get(), 2, {}),
          "finishes");
    for (std::size_t i = 0; i < n; ++i) {
        check(judged[i] <= (i % 3 == 0 ? 0 : 1), "rounds judged");
        check(flagged[i] <= judged[i], "rounds flagged");
    }
}

void triples_and_their_step() {
    const std::size_t n = 3000, width = 5, classes = 9;
    const Problem p = make(n, width, static_cast<std::int32_t>(classes));
    const auto counts = exact_buffer<std::int64_t>(classes * classes * classes);
    check(count_triples(p.lists(), p.voters(), p.asked(), classes, counts.get(), 3, {}), "finishes");
    std::int64_t total = 0;
    for (std::size_t c = 0; c < classes * classes * classes; ++c) total += counts[c];
    check(total > 0 && total <= static_cast<std::int64_t>(n), "triples counted");

    const std::size_t m = 9001;
    std::mt19937_64 engine(1);
    const auto labels = exact_buffer<std::int32_t>(3 * m);
    const auto weights = exact_buffer<double>(m), given = exact_buffer<double>(classes * classes),
               prior = exact_buffer<double>(classes), sums = exact_buffer<double>(classes * classes),
               again = exact_buffer<double>(classes * classes), priors = exact_buffer<double>(classes);
    for (std::size_t t = 0; t < 3 * m; ++t) labels[t] = static_cast<std::int32_t>(engine() % classes);
    for (std::size_t t = 0; t < m; ++t) weights[t] = 1.0 + static_cast<double>(engine() % 4);
    for (std::size_t k = 0; k < classes * classes; ++k) given[k] = static_cast<double>(engine() % 100) / 100;
    for (std::size_t k = 0; k < classes; ++k) prior[k] = 0.1;
    const Triples triples{labels.get(), weights.get(), m};
    const double first =
        consensus_step(triples, classes, given.get(), prior.get(), sums.get(), priors.get(), 1);
    const double second =
        consensus_step(triples, classes, given.get(), prior.get(), again.get(), priors.get(), 3);
    bool same = first == second;
    for (std::size_t k = 0; k < classes * classes; ++k) same &= sums[k] == again[k];
    check(same, "the same bits for any threads");
}

const Test tests[] = {{"votes: winners equal a map's", votes_equal_a_map},
                      {"votes: rounds stay in their part", rounds_stay_in_their_part},
                      {"votes: triples and a step of consensus, thread", triples_and_their_step}};

}  // namespace
}  // namespace pycurate::tests
