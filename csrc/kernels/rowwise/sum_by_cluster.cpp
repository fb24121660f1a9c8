// Sums of the rows of each cluster, in an order that neither threads nor instruction sets change.
#include <algorithm>
#include <numeric>
#include <vector>

#include "common/float_environment.h"
#include "common/thread_pool.h"
#include "kernels/rowwise/rowwise.h"

namespace pycurate::rowwise {
namespace {

/// Coordinates that a task adds: a cache line of float32 four times, and as many doubles on the stack.
constexpr std::size_t task_coordinates = 64;

/// Rows of a block by cluster, of a cluster in rising order; where each cluster present begins.
struct Grouped {
    std::vector<std::size_t> rows, begins;  // begins has one entry more
};

}  // namespace

bool sum_by_cluster(const ClusterRequest& r, std::size_t threads, const std::function<bool()>& poll) {
    const DefaultFloatEnvironment environment;
    std::fill_n(r.out, r.clusters * r.d, 0.0);
    if (r.n == 0 || r.d == 0) return true;
    const std::size_t blocks = (r.n + r.block_rows - 1) / r.block_rows;
    std::vector<Grouped> grouped(blocks);
    const auto group = [&](std::size_t block) {
        const std::size_t first = block * r.block_rows, count = std::min(r.block_rows, r.n - first);
        std::vector<std::size_t>& rows = grouped[block].rows;
        rows.resize(count);
        std::iota(rows.begin(), rows.end(), first);
        std::stable_sort(rows.begin(), rows.end(),
                         [&](std::size_t i, std::size_t j) { return r.cluster[i] < r.cluster[j]; });
        for (std::size_t at = 0; at < count; ++at)
            if (at == 0 || r.cluster[rows[at]] != r.cluster[rows[at - 1]])
                grouped[block].begins.push_back(at);
        grouped[block].begins.push_back(count);
    };
    if (!parallel_for(blocks, threads, group, poll)) return false;
    const auto add = [&](std::size_t task) {
        const DefaultFloatEnvironment of_thread;
        const std::size_t from = task * task_coordinates, width = std::min(task_coordinates, r.d - from);
        double sums[task_coordinates] = {};
        for (const Grouped& block : grouped)
            for (std::size_t g = 0; g + 1 < block.begins.size(); ++g) {
                for (std::size_t at = block.begins[g]; at < block.begins[g + 1]; ++at) {
                    const std::size_t i = block.rows[at];
                    const float* x = r.x + i * r.d + from;
                    const double length = r.lengths != nullptr ? r.lengths[i] : 1.0;
                    const bool is_first = at == block.begins[g];
                    for (std::size_t j = 0; j < width; ++j) {
                        const double value = static_cast<double>(x[j]) / length;
                        sums[j] = is_first ? value : sums[j] + value;
                    }
                }
                double* out =
                    r.out + static_cast<std::size_t>(r.cluster[block.rows[block.begins[g]]]) * r.d + from;
                for (std::size_t j = 0; j < width; ++j) out[j] += sums[j];
            }
    };
    return parallel_for((r.d + task_coordinates - 1) / task_coordinates, threads, add, poll);
}

}  // namespace pycurate::rowwise
