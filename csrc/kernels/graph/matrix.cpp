// A graph's weights as the matrix of a sweep: order of edges, transpose, sums and scales.
#include <algorithm>
#include <atomic>
#include <numeric>

#include "common/float_environment.h"
#include "common/thread_pool.h"
#include "kernels/graph/graph.h"

namespace pycurate::graph {
namespace {

std::size_t blocks_of(std::size_t rows) noexcept { return (rows + block_rows - 1) / block_rows; }

template <class Task>
bool by_rows(std::size_t rows, std::size_t threads, const Poll& poll, const Task& task) {
    return parallel_for(
        blocks_of(rows), threads,
        [&](std::size_t block) {
            const DefaultFloatEnvironment environment;
            for (std::size_t i = block * block_rows; i < std::min((block + 1) * block_rows, rows); ++i)
                task(i);
        },
        poll);
}

std::uint64_t index_at(const Edges<float>& edges, std::size_t e) noexcept {
    return edges.wide ? static_cast<const std::uint64_t*>(edges.indices)[e]
                      : static_cast<const std::uint32_t*>(edges.indices)[e];
}

/// indptr of rows that have `degrees`, which stand at [1] to [rows].
void accumulate(std::vector<std::uint64_t>& indptr) noexcept {
    std::partial_sum(indptr.begin(), indptr.end(), indptr.begin());
}

}  // namespace

bool is_graph(const Edges<float>& edges, std::size_t& row) noexcept {
    for (row = 0; row < edges.rows; ++row) {
        if (edges.indptr[row + 1] < edges.indptr[row]) return false;
        for (std::uint64_t e = edges.indptr[row]; e < edges.indptr[row + 1]; ++e)
            if (index_at(edges, e) >= edges.rows) return false;
    }
    return true;
}

template <class Index>
bool without_loops(const Edges<float>& edges, Graph<Index>& out, std::size_t& repeated, std::size_t threads,
                   const Poll& poll) {
    const auto* indices = static_cast<const Index*>(edges.indices);
    const auto begin = [&](std::size_t i) { return edges.indptr[i] - edges.indptr[0]; };
    out.indptr.assign(edges.rows + 1, 0);
    for (std::size_t i = 0; i < edges.rows; ++i) {
        std::uint64_t degree = 0;
        for (std::uint64_t e = begin(i); e < begin(i + 1); ++e) degree += indices[e] != edges.first_row + i;
        out.indptr[i + 1] = degree;
    }
    accumulate(out.indptr);
    out.indices.resize(out.indptr.back());
    out.values.resize(out.indptr.back());
    std::atomic<std::size_t> lowest{edges.rows};
    const bool finished = by_rows(edges.rows, threads, poll, [&](std::size_t i) {
        std::vector<std::pair<Index, float>> row;
        row.reserve(begin(i + 1) - begin(i));
        for (std::uint64_t e = begin(i); e < begin(i + 1); ++e)
            if (indices[e] != edges.first_row + i) row.emplace_back(indices[e], edges.values[e]);
        std::sort(row.begin(), row.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
        std::uint64_t at = out.indptr[i];
        for (std::size_t k = 0; k < row.size(); ++k, ++at) {
            out.indices[at] = row[k].first;
            out.values[at] = row[k].second;
            if (k > 0 && row[k].first == row[k - 1].first)
                for (std::size_t known = lowest; i < known && !lowest.compare_exchange_weak(known, i);) {
                }
        }
    });
    repeated = lowest;
    return finished;
}

template <class Index>
void transpose(const Edges<float>& edges, Graph<Index>& out) {
    const auto* indices = static_cast<const Index*>(edges.indices);
    const std::uint64_t count = edges.indptr[edges.rows];
    out.indptr.assign(edges.rows + 1, 0);
    for (std::uint64_t e = 0; e < count; ++e) ++out.indptr[indices[e] + 1];
    accumulate(out.indptr);
    out.indices.resize(count);
    out.values.resize(count);
    std::vector<std::uint64_t> place(out.indptr.begin(), out.indptr.end() - 1);
    for (std::size_t i = 0; i < edges.rows; ++i)
        for (std::uint64_t e = edges.indptr[i]; e < edges.indptr[i + 1]; ++e) {
            const std::uint64_t at = place[indices[e]]++;
            out.indices[at] = static_cast<Index>(i);
            out.values[at] = edges.values[e];
        }
}

template <class Index>
bool add(const Graph<Index>& a, const Graph<Index>& b, Graph<Index>& out, std::size_t threads,
         const Poll& poll) {
    const std::size_t rows = a.indptr.size() - 1;
    // Calls each(index, value) of row i of the sum, in rising order.
    const auto merged = [&](std::size_t i, const auto& each) {
        std::uint64_t x = a.indptr[i], y = b.indptr[i];
        const std::uint64_t x_end = a.indptr[i + 1], y_end = b.indptr[i + 1];
        while (x < x_end || y < y_end) {
            if (y == y_end || (x < x_end && a.indices[x] < b.indices[y])) {
                each(a.indices[x], a.values[x]), ++x;
            } else if (x == x_end || b.indices[y] < a.indices[x]) {
                each(b.indices[y], b.values[y]), ++y;
            } else {
                each(a.indices[x], a.values[x] + b.values[y]), ++x, ++y;
            }
        }
    };
    out.indptr.assign(rows + 1, 0);
    if (!by_rows(rows, threads, poll, [&](std::size_t i) {
            std::uint64_t degree = 0;
            merged(i, [&](Index, float) { ++degree; });
            out.indptr[i + 1] = degree;
        }))
        return false;
    accumulate(out.indptr);
    out.indices.resize(out.indptr.back());
    out.values.resize(out.indptr.back());
    return by_rows(rows, threads, poll, [&](std::size_t i) {
        std::uint64_t at = out.indptr[i];
        merged(i, [&](Index index, float value) {
            out.indices[at] = index;
            out.values[at++] = value;
        });
    });
}

bool row_sums(const Edges<float>& edges, double* sums, std::size_t threads, const Poll& poll) {
    return by_rows(edges.rows, threads, poll, [&](std::size_t i) {
        double sum = 0;
        for (std::uint64_t e = edges.indptr[i] - edges.indptr[0]; e < edges.indptr[i + 1] - edges.indptr[0];
             ++e)
            sum += static_cast<double>(edges.values[e]);
        sums[i] = sum;
    });
}

void add_column_sums(const Edges<float>& edges, double* sums) noexcept {
    const std::uint64_t count = edges.indptr[edges.rows] - edges.indptr[0];
    for (std::uint64_t e = 0; e < count; ++e)
        sums[index_at(edges, e)] += static_cast<double>(edges.values[e]);
}

template <class T>
bool scale(const Edges<float>& edges, const double* left, const double* right, T* out, std::size_t threads,
           const Poll& poll) {
    return by_rows(edges.rows, threads, poll, [&](std::size_t i) {
        for (std::uint64_t e = edges.indptr[i] - edges.indptr[0]; e < edges.indptr[i + 1] - edges.indptr[0];
             ++e)
            out[e] =
                static_cast<T>(static_cast<double>(edges.values[e]) * left[i] * right[index_at(edges, e)]);
    });
}

template bool without_loops(const Edges<float>&, Graph<std::uint32_t>&, std::size_t&, std::size_t,
                            const Poll&);
template bool without_loops(const Edges<float>&, Graph<std::uint64_t>&, std::size_t&, std::size_t,
                            const Poll&);
template void transpose(const Edges<float>&, Graph<std::uint32_t>&);
template void transpose(const Edges<float>&, Graph<std::uint64_t>&);
template bool add(const Graph<std::uint32_t>&, const Graph<std::uint32_t>&, Graph<std::uint32_t>&,
                  std::size_t, const Poll&);
template bool add(const Graph<std::uint64_t>&, const Graph<std::uint64_t>&, Graph<std::uint64_t>&,
                  std::size_t, const Poll&);
template bool scale(const Edges<float>&, const double*, const double*, float*, std::size_t, const Poll&);
template bool scale(const Edges<float>&, const double*, const double*, double*, std::size_t, const Poll&);

}  // namespace pycurate::graph
