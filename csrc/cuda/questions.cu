// What each question asks of a join, and what it makes of the answer.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "cuda/join.h"
#include "kernels/fused_similarity/ranked.h"
#include "kernels/rowwise/similarity.h"

namespace pycurate::cuda {
namespace {

using fused_similarity::Ranked;

// Pairs that come to the host at a time: 48 MB.
constexpr std::size_t found_room = std::size_t{1} << 22;

/// Pairs of positions as pairs of rows; in a self-join the lower first.
class PairRows {
  public:
    PairRows(const Operand& a, const Operand* b)
        : a_(a),
          b_(b != nullptr ? *b : a),
          self_(b == nullptr),
          order_a_(a.order.host()),
          order_b_(b != nullptr ? b->order.host() : order_a_) {}
    Pair operator()(const Found& found) const {
        std::int64_t row = a_.rows[order_a_[found.i]], col = b_.rows[order_b_[found.j]];
        if (self_ && row > col) std::swap(row, col);
        return {row, col, found.similarity};
    }

  private:
    const Operand &a_, &b_;
    const bool self_;
    const std::vector<std::uint32_t> order_a_, order_b_;
};

template <class T>
Buffer<T> optional_buffer(const T* host, std::size_t n) {
    return host != nullptr ? Buffer<T>::of(host, n) : Buffer<T>();
}

}  // namespace

bool pairs_above(const Operand& a, const Operand* b, float threshold, std::size_t max_pairs,
                 std::vector<Pair>& out, bool& too_many, const Poll& poll, Work& work) {
    const Current current(a.x->device);
    const PairRows rows(a, b);
    Asking asking{Question::pairs, threshold, found_room};
    asking.take = [&](const std::vector<Found>& found) {
        too_many = out.size() + found.size() > max_pairs;
        if (!too_many)
            for (const Found& pair : found) out.push_back(rows(pair));
        return too_many;
    };
    if (!run_join(a, b, asking, poll, work)) return false;
    if (!too_many)
        std::sort(out.begin(), out.end(), [](const Pair& x, const Pair& y) {
            return x.row != y.row ? x.row < y.row : x.col < y.col;
        });
    return true;
}

bool forest_above(const Operand& a, const Operand* b, float threshold,
                  std::vector<std::pair<std::int64_t, std::int64_t>>& out, const Poll& poll, Work& work) {
    const Current current(a.x->device);
    const PairRows rows(a, b);
    std::vector<std::uint32_t> nodes(a.n + (b != nullptr ? b->n : 0));
    std::iota(nodes.begin(), nodes.end(), 0u);
    const auto parents = Buffer<std::uint32_t>::of(nodes);
    Buffer<std::uint8_t> whole((a.positions() + (b != nullptr ? b->positions() : 0)) / tile_rows);
    whole.zero();
    Asking asking{Question::forest, threshold, found_room};
    asking.set = [&](JoinParams& p) { p.parents = parents.get(), p.whole = whole.get(); };
    asking.take = [&](const std::vector<Found>& found) {
        for (const Found& edge : found) {
            const Pair pair = rows(edge);
            out.emplace_back(pair.row, pair.col);
        }
        return false;
    };
    return run_join(a, b, asking, poll, work);
}

bool spanning_forest_above(const Operand& a, const Operand* b, float floor, std::vector<Pair>& out,
                           const Poll& poll, Work& work) {
    const Current current(a.x->device);
    const Operand& other = b != nullptr ? *b : a;
    const std::vector<std::uint32_t> order_a = a.order.host(), order_b = other.order.host();
    const auto offset = static_cast<std::int64_t>(b != nullptr ? a.n : 0);
    const std::size_t nodes = a.n + (b != nullptr ? b->n : 0);
    Asking asking{Question::pairs, floor, found_room};
    // Edges that no forest needs go at once: memory is that of the rows.
    asking.take = [&](const std::vector<Found>& found) {
        for (const Found& pair : found) {
            std::int64_t i = order_a[pair.i], j = offset + order_b[pair.j];
            if (b == nullptr && i > j) std::swap(i, j);
            out.push_back({i, j, pair.similarity});
        }
        fused_similarity::heaviest_forest(nodes, out);
        return false;
    };
    if (!run_join(a, b, asking, poll, work)) return false;
    for (Pair& edge : out) {
        edge.row = a.rows[static_cast<std::size_t>(edge.row)];
        edge.col = other.rows[static_cast<std::size_t>(edge.col - offset)];
    }
    return true;
}

bool count_above(const Operand& a, const Operand* b, float threshold, const std::int64_t* weights_a,
                 const std::int64_t* weights_b, std::int64_t* counts_a, std::int64_t* counts_b,
                 const Poll& poll, Work& work) {
    const Current current(a.x->device);
    const Operand& other = b != nullptr ? *b : a;
    Buffer<unsigned long long> of_a(a.n), of_b(b != nullptr ? b->n : 0);
    of_a.zero(), of_b.zero();
    const auto device_a = optional_buffer(weights_a, a.n), device_b = optional_buffer(weights_b, other.n);
    Asking asking{Question::counts, threshold};
    asking.set = [&](JoinParams& p) {
        p.counts_a = of_a.get(), p.counts_b = b != nullptr ? of_b.get() : of_a.get();
        p.weights_a = device_a.get(), p.weights_b = b != nullptr ? device_b.get() : device_a.get();
    };
    if (!run_join(a, b, asking, poll, work)) return false;
    copy_out(counts_a, of_a.get(), a.n * sizeof *counts_a);
    if (b != nullptr) copy_out(counts_b, of_b.get(), b->n * sizeof *counts_b);
    return true;
}

bool max_earlier(const Operand& a, const Operand* b, const std::uint32_t* ranks_a,
                 const std::uint32_t* ranks_b, float floor, std::int64_t* best_a, float* similarities_a,
                 std::int64_t* best_b, float* similarities_b, const Poll& poll, Work& work) {
    const Current current(a.x->device);
    Buffer<unsigned long long> of_a(a.n), of_b(b != nullptr ? b->n : 0);
    of_a.zero(), of_b.zero();
    const auto device_a = Buffer<std::uint32_t>::of(ranks_a, a.n);
    const auto device_b = optional_buffer(b != nullptr ? ranks_b : nullptr, b != nullptr ? b->n : 0);
    Asking asking{Question::earlier, floor};
    asking.set = [&](JoinParams& p) {
        p.best_a = of_a.get(), p.best_b = b != nullptr ? of_b.get() : of_a.get();
        p.ranks_a = device_a.get(), p.ranks_b = b != nullptr ? device_b.get() : device_a.get();
    };
    if (!run_join(a, b, asking, poll, work)) return false;
    const auto write = [](const Buffer<unsigned long long>& best, std::int64_t* ranks, float* similarities) {
        const std::vector<unsigned long long> found = best.host();
        for (std::size_t i = 0; i < found.size(); ++i) {
            const bool none = found[i] == Ranked::none;
            ranks[i] = none ? -1 : static_cast<std::int64_t>(Ranked::number(found[i]));
            similarities[i] = none ? static_cast<float>(rowwise::quiet_nan) : Ranked::score(found[i]);
        }
    };
    write(of_a, best_a, similarities_a);
    if (b != nullptr) write(of_b, best_b, similarities_b);
    return true;
}

namespace {

/// Asks for the nearest rows of b, or of a itself, with lists by position.
bool nearest_of(const Operand& a, const Operand* b, std::size_t k, std::uint32_t first_b,
                const Buffer<unsigned long long>& lists, const Poll& poll, Work& work) {
    Asking asking{Question::nearest, -std::numeric_limits<float>::infinity()};
    asking.set = [&](JoinParams& p) {
        p.lists = lists.get(), p.k = static_cast<std::uint32_t>(k), p.first_b = first_b;
    };
    return run_join(a, b, asking, poll, work);
}

/// The k nearest rows of b for each row of a; of a itself when b is null.
bool nearest_of(const Operand& a, const Operand* b, std::size_t k, std::int64_t* rows, float* similarities,
                const Poll& poll, Work& work) {
    const Operand& other = b != nullptr ? *b : a;
    Buffer<unsigned long long> lists(a.n * k);
    lists.zero();
    if (!nearest_of(a, b, k, 0, lists, poll, work)) return false;
    const std::vector<unsigned long long> found = lists.host();
    const std::vector<std::uint32_t> order = a.order.host();
    for (std::size_t i = 0; i < a.n; ++i)
        for (std::size_t r = 0; r < k; ++r) {
            const unsigned long long ranked = found[i * k + r];
            const std::size_t at = order[i] * k + r;
            const bool none = ranked == Ranked::none;
            rows[at] = none ? -1 : other.rows[Ranked::number(ranked)];
            similarities[at] = none ? static_cast<float>(rowwise::quiet_nan) : Ranked::score(ranked);
        }
    return true;
}

}  // namespace

bool add_nearest(const Operand& a, const Operand* b, std::size_t k, std::uint32_t first_b,
                 std::uint64_t* lists, const Poll& poll, Work& work) {
    const Current current(a.x->device);
    const std::vector<std::uint32_t> order = a.order.host();
    std::vector<unsigned long long> by_position(a.n * k);
    for (std::size_t i = 0; i < a.n; ++i)
        std::copy_n(lists + order[i] * k, k, by_position.begin() + static_cast<std::ptrdiff_t>(i * k));
    const auto there = Buffer<unsigned long long>::of(by_position);
    if (!nearest_of(a, b, k, first_b, there, poll, work)) return false;
    copy_out(by_position.data(), there.get(), by_position.size() * sizeof by_position[0]);
    for (std::size_t i = 0; i < a.n; ++i)
        std::copy_n(by_position.begin() + static_cast<std::ptrdiff_t>(i * k), k, lists + order[i] * k);
    return true;
}

bool top_k(const Operand& a, const Operand* b, std::size_t k, std::int64_t* rows_a, float* similarities_a,
           std::int64_t* rows_b, float* similarities_b, const Poll& poll, Work& work) {
    const Current current(a.x->device);
    const bool both = b != nullptr && rows_b != nullptr;
    const auto half = [&](double begin) {
        return both && poll ? Poll([&poll, begin](double done) { return poll(begin + done / 2); }) : poll;
    };
    if (!nearest_of(a, b, k, rows_a, similarities_a, half(0), work)) return false;
    return !both || nearest_of(*b, &a, k, rows_b, similarities_b, half(0.5), work);
}

}  // namespace pycurate::cuda
