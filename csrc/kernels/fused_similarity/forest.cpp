// The heaviest spanning forest of the pairs at or above a floor: what joins two rows most strongly, directly
// or through others, at every threshold from the floor upwards. Edges are ordered by score, then by their
// rows, so that there is one such forest.
//
// Edges found are kept until there are as many as rows; with the forest so far they are then reduced to the
// forest of both (Kruskal). An edge whose ends hang together by heavier ones can be in none, so the forest's
// components at some of its scores, its levels, reject nearly everything that comes later: memory is that of
// the rows.
#include <array>
#include <memory>
#include <numeric>

#include "kernels/fused_similarity/join.h"

namespace pycurate::fused_similarity {
namespace {

/// Two nodes, the lower first: the rows of a by index, behind them those of b.
struct Edge {
    std::uint32_t from, to;
    float score;
    bool operator<(const Edge& other) const noexcept {  // the heavier is the smaller
        if (score != other.score) return score > other.score;
        return from != other.from ? from < other.from : to < other.to;
    }
};

class Nodes {
  public:
    explicit Nodes(std::size_t n) : parents_(n) { std::iota(parents_.begin(), parents_.end(), 0u); }
    std::uint32_t root(std::uint32_t i) noexcept {
        while (parents_[i] != i) i = parents_[i] = parents_[parents_[i]];
        return i;
    }
    bool unite(std::uint32_t i, std::uint32_t j) noexcept {
        i = root(i), j = root(j);
        parents_[std::max(i, j)] = std::min(i, j);
        return i != j;
    }

  private:
    std::vector<std::uint32_t> parents_;
};

constexpr std::size_t level_count = 16;

/// Components of a forest's edges down to some of its scores.
struct Levels {
    std::array<float, level_count> scores;  // of the last edge that a level has: falling
    std::vector<std::uint32_t> labels;      // [node][level]

    /// Whether the nodes hang together by edges heavier than `score`.
    bool joined(std::uint32_t i, std::uint32_t j, float score) const noexcept {
        std::size_t heavier = 0;
        for (const float each : scores) heavier += each > score;
        if (heavier == 0) return false;
        return labels[i * level_count + heavier - 1] == labels[j * level_count + heavier - 1];
    }
};

/// Leaves the forest of `edges`, heaviest first, and says its levels unless there are none to say.
std::shared_ptr<const Levels> reduce(std::vector<Edge>& edges, std::size_t n, bool with_levels) {
    std::sort(edges.begin(), edges.end());
    Nodes nodes(n);
    edges.erase(std::remove_if(edges.begin(), edges.end(),
                               [&](const Edge& edge) { return !nodes.unite(edge.from, edge.to); }),
                edges.end());
    if (!with_levels || edges.size() < level_count) return nullptr;
    auto levels = std::make_shared<Levels>();
    levels->labels.resize(n * level_count);
    Nodes joined(n);
    std::size_t done = 0;
    for (std::size_t level = 0; level < level_count; ++level) {
        const std::size_t end = edges.size() * (level + 1) / level_count;
        for (; done < end; ++done) joined.unite(edges[done].from, edges[done].to);
        levels->scores[level] = edges[end - 1].score;
        for (std::uint32_t i = 0; i < n; ++i) levels->labels[i * level_count + level] = joined.root(i);
    }
    return levels;
}

struct HeaviestForest {
    static constexpr bool moving = false, both = false;
    struct Slot {
        std::vector<Edge> found;
        std::shared_ptr<const Levels> levels;
        std::size_t version = 0;
    };
    const Operand &a, &b;
    float floor;
    std::uint32_t offset;  // node of b's first index
    std::size_t n, most_found;
    std::vector<Edge> forest{};
    std::shared_ptr<const Levels> levels{};
    std::atomic<std::size_t> version{0};
    std::mutex mutex{};

    HeaviestForest(const Operand& a_, const Operand* b_, float floor_)
        : a(a_),
          b(b_ != nullptr ? *b_ : a_),
          floor(floor_),
          offset(b_ != nullptr ? static_cast<std::uint32_t>(a_.n) : 0),
          n(a_.n + (b_ != nullptr ? b_->n : 0)),
          most_found(std::max<std::size_t>(n, 1 << 14)) {}

    float row_limit(std::size_t) const noexcept { return floor; }
    float col_limit(std::size_t) const noexcept { return floor; }
    bool settled(std::size_t, std::size_t) const noexcept { return false; }
    template <class Lower>
    bool wants(Slot& slot, std::size_t i, std::size_t j, float upper, const Lower&) const noexcept {
        return slot.levels == nullptr || !slot.levels->joined(a.order[i], offset + b.order[j], upper);
    }
    void take(Slot& slot, std::size_t i, std::size_t j, float score) {
        const std::uint32_t x = a.order[i], y = offset + b.order[j];
        if (slot.levels != nullptr && slot.levels->joined(x, y, score)) return;
        slot.found.push_back({std::min(x, y), std::max(x, y), score});
        if (slot.found.size() >= most_found) merge(slot);
    }
    bool done(Slot& slot) {
        if (slot.version != version.load(std::memory_order_acquire)) {
            const std::lock_guard lock(mutex);
            slot.levels = levels, slot.version = version.load(std::memory_order_relaxed);
        }
        return false;
    }
    void merge(Slot& slot) {
        const std::lock_guard lock(mutex);
        forest.insert(forest.end(), slot.found.begin(), slot.found.end());
        slot.found.clear();
        levels = reduce(forest, n, true);
        slot.levels = levels, slot.version = version.fetch_add(1, std::memory_order_release) + 1;
    }
};

}  // namespace

bool spanning_forest_above(const Operand& a, const Operand* b, float floor, std::vector<Pair>& out,
                           std::size_t threads, const Poll& poll, Work& work) {
    HeaviestForest epilogue(a, b, floor);
    Join<HeaviestForest> join(a, b, epilogue);
    std::vector<Edge>& edges = epilogue.forest;
    if (!join.run(threads, poll, work, [&](HeaviestForest::Slot& slot) {
            edges.insert(edges.end(), slot.found.begin(), slot.found.end());
            slot.found = {};
        }))
        return false;
    reduce(edges, epilogue.n, false);
    out.reserve(edges.size());
    const std::vector<std::int64_t>& rows_b = epilogue.b.rows;
    for (const Edge& edge : edges)
        out.push_back({a.rows[edge.from], rows_b[edge.to - epilogue.offset], edge.score});
    return true;
}

void heaviest_forest(std::size_t n, std::vector<Pair>& edges) {
    std::vector<Edge> reduced;
    reduced.reserve(edges.size());
    for (const Pair& edge : edges) {
        const auto x = static_cast<std::uint32_t>(edge.row), y = static_cast<std::uint32_t>(edge.col);
        reduced.push_back({std::min(x, y), std::max(x, y), edge.similarity});
    }
    reduce(reduced, n, false);
    edges.clear();
    for (const Edge& edge : reduced) edges.push_back({edge.from, edge.to, edge.score});
}

}  // namespace pycurate::fused_similarity
