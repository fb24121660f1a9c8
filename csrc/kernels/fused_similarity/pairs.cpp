// Questions with one threshold: pairs, spanning forest, counts; and the most similar earlier row above a
// floor.
#include <numeric>

#include "common/disjoint_sets.h"
#include "kernels/fused_similarity/join.h"
#include "kernels/fused_similarity/ranked.h"

namespace pycurate::fused_similarity {
namespace {

struct FixedLimit {
    static constexpr bool moving = false, both = false;
    float threshold;
    float row_limit(std::size_t) const noexcept { return threshold; }
    float col_limit(std::size_t) const noexcept { return threshold; }
    bool settled(std::size_t, std::size_t) const noexcept { return false; }
};

struct PairsAbove : FixedLimit {
    struct Slot {
        std::vector<Pair> pairs;
        std::size_t counted = 0;
    };
    const Operand &a, &b;
    bool self;
    std::size_t max_pairs;
    std::atomic<std::size_t> found{0};

    PairsAbove(const Operand& a_, const Operand* b_, float limit, std::size_t most)
        : FixedLimit{limit}, a(a_), b(b_ != nullptr ? *b_ : a_), self(b_ == nullptr), max_pairs(most) {}
    template <class Lower>
    bool wants(Slot&, std::size_t, std::size_t, float, const Lower&) const noexcept {
        return true;
    }
    void take(Slot& slot, std::size_t i, std::size_t j, float score) const {
        std::int64_t row = a.row_at(i), col = b.row_at(j);
        if (self && row > col) std::swap(row, col);
        slot.pairs.push_back({row, col, score});
    }
    bool done(Slot& slot) noexcept {
        const std::size_t more = slot.pairs.size() - slot.counted;
        slot.counted = slot.pairs.size();
        return found.fetch_add(more, std::memory_order_relaxed) + more > max_pairs;
    }
};

/// Whether no sum of a pair's similarity can overflow float32, after which it would be no pair.
bool has_score(const Operand& a, std::size_t i, const Operand& b, std::size_t j) noexcept {
    constexpr double large_square = 0x1p124;
    return a.squares[i] < large_square && b.squares[j] < large_square;
}

struct ForestAbove : FixedLimit {
    struct Slot {
        std::vector<std::pair<std::int64_t, std::int64_t>> edges;
    };
    const Operand &a, &b;
    std::size_t offset;  // node of b's first position
    DisjointSets sets;
    std::vector<std::atomic<bool>> whole_a, whole_b;  // panels all of whose rows are known to be connected

    ForestAbove(const Operand& a_, const Operand* b_, float limit)
        : FixedLimit{limit},
          a(a_),
          b(b_ != nullptr ? *b_ : a_),
          offset(b_ != nullptr ? a_.n : 0),
          sets(a_.n + (b_ != nullptr ? b_->n : 0)),
          whole_a(a.panels()),
          whole_b(b.panels()) {}

    bool whole(std::vector<std::atomic<bool>>& known, const Operand& o, std::size_t first,
               std::size_t panel) {
        if (known[panel].load(std::memory_order_relaxed)) return true;
        const std::size_t begin = panel * panel_rows, end = std::min(begin + panel_rows, o.n);
        const std::uint32_t root = sets.root(first + begin);
        for (std::size_t i = begin + 1; i < end; ++i)
            if (sets.root(first + i) != root) return false;
        known[panel].store(true, std::memory_order_relaxed);
        return true;
    }
    /// Once a clump is connected, none of its pairs needs to be looked at: it costs O(n), not O(n^2).
    bool settled(std::size_t panel_a, std::size_t panel_b) {
        return whole(whole_a, a, 0, panel_a) && whole(whole_b, b, offset, panel_b) &&
               sets.root(panel_a * panel_rows) == sets.root(offset + panel_b * panel_rows);
    }
    template <class Lower>
    bool wants(Slot& slot, std::size_t i, std::size_t j, float, const Lower& lower) {
        if (sets.root(i) == sets.root(offset + j)) return false;
        if (!(lower() >= threshold && has_score(a, i, b, j))) return true;
        take(slot, i, j, threshold);
        return false;
    }
    void take(Slot& slot, std::size_t i, std::size_t j, float) {
        if (sets.unite(i, offset + j)) slot.edges.emplace_back(a.row_at(i), b.row_at(j));
    }
    bool done(Slot&) const noexcept { return false; }
};

struct CountAbove : FixedLimit {
    /// A thread's own sums, by index; the size of an operand's other arrays.
    struct Slot {
        std::vector<std::int64_t> counts_a, counts_b;
    };
    const Operand &a, &b;
    const std::int64_t *weights_a, *weights_b;
    bool self;

    template <class Lower>
    bool wants(Slot& slot, std::size_t i, std::size_t j, float, const Lower& lower) const {
        if (!(lower() >= threshold && has_score(a, i, b, j))) return true;
        take(slot, i, j, threshold);
        return false;
    }
    void take(Slot& slot, std::size_t i, std::size_t j, float) const {
        if (slot.counts_a.empty()) slot.counts_a.resize(a.n), slot.counts_b.resize(self ? 0 : b.n);
        const std::uint32_t x = a.order[i], y = b.order[j];
        slot.counts_a[x] += weights_b != nullptr ? weights_b[y] : 1;
        (self ? slot.counts_a : slot.counts_b)[y] += weights_a != nullptr ? weights_a[x] : 1;
    }
    bool done(Slot&) const noexcept { return false; }
};

/// The best score of each position with the rank it came from.
class Best {
  public:
    explicit Best(std::size_t n) : values_(n) {}
    bool empty(std::size_t i) const noexcept { return at(i) == Ranked::none; }
    std::uint64_t at(std::size_t i) const noexcept { return values_[i].load(std::memory_order_relaxed); }
    void raise(std::size_t i, std::uint64_t value) noexcept {
        std::uint64_t old = at(i);
        while (old < value && !values_[i].compare_exchange_weak(old, value, std::memory_order_relaxed)) {
        }
    }

  private:
    std::vector<std::atomic<std::uint64_t>> values_;  // by position
};

struct MaxEarlier : FixedLimit {
    struct Slot {};
    const Operand &a, &b;
    const std::uint32_t *ranks_a, *ranks_b;
    Best best_a, best_b;
    Best& of_b;  // best_a in a self-join

    MaxEarlier(const Operand& a_, const Operand* b_, const std::uint32_t* ra, const std::uint32_t* rb,
               float floor)
        : FixedLimit{floor},
          a(a_),
          b(b_ != nullptr ? *b_ : a_),
          ranks_a(ra),
          ranks_b(b_ != nullptr ? rb : ra),
          best_a(a_.n),
          best_b(b_ != nullptr ? b_->n : 0),
          of_b(b_ != nullptr ? best_b : best_a) {}
    std::uint32_t rank_a(std::size_t i) const noexcept { return ranks_a[a.order[i]]; }
    std::uint32_t rank_b(std::size_t j) const noexcept { return ranks_b[b.order[j]]; }

    template <class Lower>
    bool wants(Slot&, std::size_t i, std::size_t j, float upper, const Lower&) const noexcept {
        const std::uint64_t best = rank_a(i) > rank_b(j) ? best_a.at(i) : of_b.at(j);
        return best == Ranked::none || !(upper < Ranked::score(best));
    }
    void take(Slot&, std::size_t i, std::size_t j, float score) noexcept {
        const std::uint32_t x = rank_a(i), y = rank_b(j);
        if (x > y)
            best_a.raise(i, Ranked::of(score, y));
        else
            of_b.raise(j, Ranked::of(score, x));
    }
    bool done(Slot&) const noexcept { return false; }
};

void write_best(const Operand& o, const Best& best, std::int64_t* ranks, float* similarities) {
    for (std::size_t i = 0; i < o.n; ++i) {
        const std::uint32_t at = o.order[i];
        ranks[at] = best.empty(i) ? -1 : static_cast<std::int64_t>(Ranked::number(best.at(i)));
        similarities[at] = best.empty(i) ? static_cast<float>(rowwise::quiet_nan) : Ranked::score(best.at(i));
    }
}

}  // namespace

bool pairs_above(const Operand& a, const Operand* b, float threshold, std::size_t max_pairs,
                 std::vector<Pair>& out, bool& too_many, std::size_t threads, const Poll& poll, Work& work) {
    PairsAbove epilogue(a, b, threshold, max_pairs);
    Join<PairsAbove> join(a, b, epilogue);
    const bool complete = join.run(threads, poll, work, [&](PairsAbove::Slot& slot) {
        out.insert(out.end(), slot.pairs.begin(), slot.pairs.end());
        slot.pairs = {};
    });
    too_many = epilogue.found.load() > max_pairs;
    if (!complete || too_many) return complete;
    std::sort(out.begin(), out.end(),
              [](const Pair& x, const Pair& y) { return x.row != y.row ? x.row < y.row : x.col < y.col; });
    return true;
}

bool forest_above(const Operand& a, const Operand* b, float threshold,
                  std::vector<std::pair<std::int64_t, std::int64_t>>& out, std::size_t threads,
                  const Poll& poll, Work& work) {
    ForestAbove epilogue(a, b, threshold);
    return Join<ForestAbove>(a, b, epilogue).run(threads, poll, work, [&](ForestAbove::Slot& slot) {
        out.insert(out.end(), slot.edges.begin(), slot.edges.end());
    });
}

bool count_above(const Operand& a, const Operand* b, float threshold, const std::int64_t* weights_a,
                 const std::int64_t* weights_b, std::int64_t* counts_a, std::int64_t* counts_b,
                 std::size_t threads, const Poll& poll, Work& work) {
    const Operand& other = b != nullptr ? *b : a;
    CountAbove epilogue{{threshold}, a, other, weights_a, b != nullptr ? weights_b : weights_a, b == nullptr};
    const auto add = [](const std::vector<std::int64_t>& counts, std::int64_t* out) {
        for (std::size_t i = 0; i < counts.size(); ++i) out[i] += counts[i];
    };
    return Join<CountAbove>(a, b, epilogue).run(threads, poll, work, [&](CountAbove::Slot& slot) {
        add(slot.counts_a, counts_a);
        if (b != nullptr) add(slot.counts_b, counts_b);
    });
}

bool max_earlier(const Operand& a, const Operand* b, const std::uint32_t* ranks_a,
                 const std::uint32_t* ranks_b, float floor, std::int64_t* best_a, float* similarities_a,
                 std::int64_t* best_b, float* similarities_b, std::size_t threads, const Poll& poll,
                 Work& work) {
    MaxEarlier epilogue(a, b, ranks_a, ranks_b, floor);
    if (!Join<MaxEarlier>(a, b, epilogue).run(threads, poll, work, [](MaxEarlier::Slot&) {})) return false;
    write_best(a, epilogue.best_a, best_a, similarities_a);
    if (b != nullptr) write_best(*b, epilogue.best_b, best_b, similarities_b);
    return true;
}

void label_components(std::size_t n, const std::int64_t* from, const std::int64_t* to, std::size_t edges,
                      std::int64_t* labels) {
    std::iota(labels, labels + n, std::int64_t{0});
    const auto root = [&](std::int64_t i) {
        while (labels[i] != i) i = labels[i] = labels[labels[i]];
        return i;
    };
    for (std::size_t e = 0; e < edges; ++e) {
        const std::int64_t x = root(from[e]), y = root(to[e]);
        labels[std::max(x, y)] = std::min(x, y);
    }
    // A label points at a lower node, whose own label is final by now.
    for (std::size_t i = 0; i < n; ++i) labels[i] = labels[labels[i]];
}

}  // namespace pycurate::fused_similarity
