#include "kernels/graph/graph.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "check.h"

namespace pycurate::tests {
namespace {

using namespace graph;

/// Rows of random neighbours in buffers without an element to spare; some rows have none.
struct Problem {
    std::size_t rows, edges;
    std::unique_ptr<std::uint64_t[]> indptr, wide;
    std::unique_ptr<std::uint32_t[]> narrow;
    std::unique_ptr<float[]> values;
    std::unique_ptr<double[]> doubles;

    explicit Problem(std::size_t n) : rows(n), edges(0), indptr(exact_buffer<std::uint64_t>(n + 1)) {
        std::mt19937_64 engine(n);
        std::vector<std::uint32_t> found;
        indptr[0] = 0;
        for (std::size_t i = 0; i < n; ++i) {
            std::vector<std::uint32_t> row;
            for (std::uint64_t k = engine() % 9; k > 0; --k)
                row.push_back(static_cast<std::uint32_t>(engine() % n));
            std::sort(row.begin(), row.end());
            row.erase(std::unique(row.begin(), row.end()), row.end());
            std::shuffle(row.begin(), row.end(), engine);
            found.insert(found.end(), row.begin(), row.end());
            indptr[i + 1] = found.size();
        }
        edges = found.size();
        wide = exact_buffer<std::uint64_t>(edges);
        narrow = exact_buffer<std::uint32_t>(edges);
        values = exact_buffer<float>(edges);
        doubles = exact_buffer<double>(edges);
        for (std::size_t e = 0; e < edges; ++e) {
            wide[e] = narrow[e] = found[e];
            values[e] = static_cast<float>(1 + engine() % 63) / 64;
            doubles[e] = static_cast<double>(values[e]);
        }
    }
    Edges<float> as_floats(bool is_wide) const {
        return {indptr.get(), is_wide ? static_cast<const void*>(wide.get()) : narrow.get(),
                is_wide,      values.get(),
                rows,         0};
    }
    Edges<double> as_doubles() const { return {indptr.get(), narrow.get(), false, doubles.get(), rows, 0}; }
};

template <class T>
void sweep_equals_sums(const Problem& problem, const Edges<T>& edges, std::size_t width) {
    const std::size_t n = problem.rows, blocks = (n + block_rows - 1) / block_rows;
    std::mt19937_64 engine(width);
    const auto state = exact_buffer<T>(n * width), previous = exact_buffer<T>(n * width);
    const auto out = exact_buffer<T>(n * width);
    for (std::size_t i = 0; i < n * width; ++i)
        state[i] = static_cast<T>(engine() % 64), previous[i] = static_cast<T>(engine() % 64);
    const auto starts = exact_buffer<std::uint64_t>(n + 1);
    for (std::size_t i = 0; i <= n; ++i) starts[i] = i / 2;
    const auto labels = exact_buffer<std::uint32_t>(n / 2);
    const auto amounts = exact_buffer<T>(n / 2);
    for (std::size_t s = 0; s < n / 2; ++s) labels[s] = static_cast<std::uint32_t>(s % width), amounts[s] = 2;
    const auto clamped = exact_buffer<std::uint8_t>(n);
    for (std::size_t i = 0; i < n; ++i) clamped[i] = i % 5 == 0;
    const auto changes = exact_buffer<double>(blocks);
    const DenseSweep<T> sweep{edges,        {starts.get(), labels.get(), amounts.get(), clamped.get()},
                              state.get(),  previous.get(),
                              out.get(),    width,
                              T{0.5},       T{1.25},
                              changes.get()};
    check(sweep_dense(sweep, 3, {}), "a sweep ends");
    bool same = true;
    double change = 0, told = 0;
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t c = 0; c < width; ++c) {
            double sum = 0;  // multiples of 1/64 below 2^15: exact in float32
            if (clamped[i] == 0)
                for (std::uint64_t e = problem.indptr[i]; e < problem.indptr[i + 1]; ++e)
                    sum += problem.doubles[e] * static_cast<double>(state[problem.narrow[e] * width + c]);
            sum *= 0.5;
            for (std::uint64_t s = starts[i]; s < starts[i + 1]; ++s)
                if (labels[s] == c) sum += 2;
            change += std::abs(sum - static_cast<double>(state[i * width + c]));
            const auto before = static_cast<double>(previous[i * width + c]);
            same &= static_cast<double>(out[i * width + c]) == 1.25 * (sum - before) + before;
        }
    for (std::size_t b = 0; b < blocks; ++b) told += changes[b];
    check(same && std::abs(told - change) <= 1e-9 * change,
          "a dense sweep of " + std::to_string(n) + " rows and " + std::to_string(width) + " columns");
}

void dense_sweeps_equal_sums() {
    for (const std::size_t n : {0u, 1u, 2u, 33u, 1030u}) {
        const Problem problem(n);
        for (const std::size_t width : {16u, 32u, 112u, 144u}) {
            sweep_equals_sums(problem, problem.as_floats(false), width);
            sweep_equals_sums(problem, problem.as_floats(true), width);
            sweep_equals_sums(problem, problem.as_doubles(), width);
        }
    }
}

void top_sweeps_keep_the_largest() {
    constexpr std::size_t kept = 3;
    for (const std::size_t n : {1u, 2u, 33u, 1030u})
        for (const std::size_t labels : {2u, 40u, 1500u}) {
            const Problem problem(n);
            std::mt19937_64 engine(n * labels);
            const auto state = exact_buffer<Labelled>(n * kept), out = exact_buffer<Labelled>(n * kept);
            for (std::size_t i = 0; i < n; ++i) {
                const auto count = std::min<std::size_t>({engine() % (kept + 1), labels});
                for (std::size_t k = 0; k < kept; ++k)
                    state[i * kept + k] = k < count ? Labelled{static_cast<std::uint32_t>((i + k) % labels),
                                                               static_cast<float>(kept - k)}
                                                    : Labelled{no_label, 0.0f};
            }
            const auto changes = exact_buffer<double>((n + block_rows - 1) / block_rows);
            for (const bool wide : {false, true}) {
                const TopSweep sweep{
                    problem.as_floats(wide), {}, state.get(), out.get(), kept, labels, 0.5f, changes.get()};
                check(sweep_top(sweep, 2, {}), "a sweep ends");
                bool same = true;
                for (std::size_t i = 0; i < n; ++i) {
                    std::vector<float> sums(labels, 0.0f);
                    for (std::uint64_t e = problem.indptr[i]; e < problem.indptr[i + 1]; ++e)
                        for (std::size_t k = 0; k < kept; ++k)
                            if (const Labelled held = state[problem.narrow[e] * kept + k];
                                held.label != no_label)
                                sums[held.label] += problem.values[e] * held.value;
                    for (std::size_t k = 0; k < kept; ++k) {
                        const auto best =
                            std::max_element(sums.begin(), sums.end());  // the first of equal ones
                        const Labelled found = out[i * kept + k];
                        if (*best > 0) {
                            same &= found.value == 0.5f * *best &&
                                    found.label == static_cast<std::uint32_t>(best - sums.begin());
                            *best = 0;
                        } else {
                            same &= found.label == no_label && found.value == 0;
                        }
                    }
                }
                check(same,
                      "a top sweep of " + std::to_string(n) + " rows, " + std::to_string(labels) + " labels");
            }
        }
}

void gradients_go_down() {
    const std::size_t n = 700, width = 32;
    const Problem problem(n);
    Graph<std::uint32_t> one_way, back, both;
    std::size_t repeated = 0;
    check(without_loops(problem.as_floats(false), one_way, repeated, 2, {}) && repeated == n, "no repeats");
    const auto edges_of = [n](const Graph<std::uint32_t>& graph) {
        return Edges<float>{graph.indptr.data(), graph.indices.data(), false, graph.values.data(), n, 0};
    };
    transpose(edges_of(one_way), back);
    check(add(one_way, back, both, 2, {}), "a sum ends");
    const auto sums = exact_buffer<double>(n), columns = exact_buffer<double>(n);
    check(row_sums(edges_of(both), sums.get(), 2, {}), "sums end");
    std::fill_n(columns.get(), n, 0.0);
    add_column_sums(edges_of(both), columns.get());
    bool same = true;
    for (std::size_t i = 0; i < n; ++i) {
        same &= std::abs(sums[i] - columns[i]) < 1e-9;
        sums[i] = sums[i] > 0 ? 1 / std::sqrt(sums[i]) : 1;
    }
    check(same, "rows and columns of a symmetric matrix");
    std::vector<float> scaled(both.values.size());
    check(scale(edges_of(both), sums.get(), sums.get(), scaled.data(), 2, {}), "a scale ends");
    both.values = scaled;
    const auto x = exact_buffer<float>(n * width), residual = exact_buffer<float>(n * width);
    const auto direction = exact_buffer<float>(n * width), product = exact_buffer<float>(n * width);
    for (std::size_t i = 0; i < n * width; ++i) residual[i] = direction[i] = i % 37 == 0 ? 1.0f : 0.0f;
    const auto dots = exact_buffer<double>(width), squares = exact_buffer<double>(width),
               changes = exact_buffer<double>(1);
    std::vector<float> factors(width, 0.0f);
    CgStep of{x.get(), residual.get(), direction.get(), direction.get(), factors.data(),
              n,       width,          squares.get(),   changes.get()};
    check(cg_step(of, 2, {}), "a step ends");
    const double first = squares[3];
    of.product = product.get();
    for (int iteration = 0; iteration < 10; ++iteration) {
        check(cg_product(edges_of(both), nullptr, direction.get(), product.get(), width, 0.9f, dots.get(), 2,
                         {}),
              "a product ends");
        std::vector<double> last(squares.get(), squares.get() + width);
        for (std::size_t c = 0; c < width; ++c) factors[c] = static_cast<float>(squares[c] / dots[c]);
        check(cg_step(of, 2, {}), "a step ends");
        for (std::size_t c = 0; c < width; ++c) factors[c] = static_cast<float>(squares[c] / last[c]);
        check(cg_turn(residual.get(), factors.data(), direction.get(), n, width, 2, {}), "a turn ends");
    }
    check(squares[3] < 1e-4 * first, "ten steps leave a hundredth of the residual");
}

const Test tests[] = {
    {"graph: dense sweeps equal sums", dense_sweeps_equal_sums},
    {"graph: top sweeps keep the largest", top_sweeps_keep_the_largest},
    {"graph: threads, gradients go down", gradients_go_down},
};

}  // namespace
}  // namespace pycurate::tests
