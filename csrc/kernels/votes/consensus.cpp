#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <vector>

#include "common/thread_pool.h"
#include "kernels/votes/votes.h"

namespace pycurate::votes {
namespace {

constexpr std::size_t task_rows = 4096;
constexpr std::size_t part_triples = 4096;

}  // namespace

bool count_triples(const Lists& lists, const Voters& voters, const Asked& asked, std::size_t classes,
                   std::int64_t* counts, std::size_t threads, const Poll& poll) {
    const auto count_row = [&](std::size_t i) {
        if (asked.own[i] < 0) return;
        const auto node = static_cast<std::size_t>(asked.nodes[i]);
        std::size_t cell = static_cast<std::size_t>(asked.own[i]), found = 0;
        for (std::size_t e = node * lists.width; e < (node + 1) * lists.width && found < 2; ++e) {
            const std::int64_t neighbor = lists.indices[e];
            if (neighbor < 0 || neighbor == static_cast<std::int64_t>(lists.first + node)) continue;
            if (voters.labels[neighbor] < 0) continue;
            cell = cell * classes + static_cast<std::size_t>(voters.labels[neighbor]);
            ++found;
        }
        if (found == 2) std::atomic_ref<std::int64_t>(counts[cell]).fetch_add(1, std::memory_order_relaxed);
    };
    return parallel_for((asked.n + task_rows - 1) / task_rows, threads,
                        [&](std::size_t t) {
                            for (std::size_t i = t * task_rows; i < std::min(asked.n, (t + 1) * task_rows);
                                 ++i)
                                count_row(i);
                        },
                        poll);
}

double consensus_step(const Triples& triples, std::size_t classes, const double* given, const double* prior,
                      double* sums, double* prior_sums, std::size_t threads) {
    const std::size_t stride = (classes + 7) / 8 * 8;
    std::vector<double> wide(classes * stride, 0.0), wide_prior(stride, 0.0), totals(triples.m);
    for (std::size_t j = 0; j < classes; ++j)
        std::copy_n(given + j * classes, classes, wide.data() + j * stride);
    std::copy_n(prior, classes, wide_prior.data());
    // A part's sums take as much as `wide`; so that they stay few, parts grow with the triples.
    const std::size_t parts = std::clamp<std::size_t>(triples.m / part_triples, 1, 16);
    const std::size_t size = (classes + 1) * stride;
    std::vector<double> part_sums(parts * size, 0.0);
    const auto& kernels = active_kernels();
    parallel_for(parts, threads, [&](std::size_t p) {
        const std::size_t begin = triples.m * p / parts, end = triples.m * (p + 1) / parts;
        double* mine = part_sums.data() + p * size;
        kernels.add_posteriors(triples.labels + 3 * begin, triples.counts + begin, end - begin, wide.data(),
                               wide_prior.data(), stride, mine, mine + classes * stride,
                               totals.data() + begin);
    });
    std::fill_n(sums, classes * classes, 0.0);
    std::fill_n(prior_sums, classes, 0.0);
    for (std::size_t p = 0; p < parts; ++p) {
        const double* mine = part_sums.data() + p * size;
        for (std::size_t j = 0; j < classes; ++j)
            for (std::size_t k = 0; k < classes; ++k) sums[j * classes + k] += mine[j * stride + k];
        for (std::size_t k = 0; k < classes; ++k) prior_sums[k] += mine[classes * stride + k];
    }
    double likelihood = 0;
    for (std::size_t t = 0; t < triples.m; ++t)
        likelihood += totals[t] > 0 ? triples.counts[t] * std::log(totals[t])
                                    : -std::numeric_limits<double>::infinity();
    return likelihood;
}

}  // namespace pycurate::votes
