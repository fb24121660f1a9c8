// The k nearest. A row keeps its k best scores so far, and what their worst says is its limit. A pair whose
// estimate reaches a limit is scored at once, so that limits are never stale; one of which only the upper
// bound does waits in a list of the thread, and mostly falls to a later limit.
#include "kernels/fused_similarity/join.h"
#include "kernels/fused_similarity/ranked.h"

namespace pycurate::fused_similarity {
namespace {

constexpr float nothing = -std::numeric_limits<float>::infinity();
// Up to so many, moving the worse ones along is quicker than a heap.
constexpr std::size_t most_sorted = 512;
// Pairs that may wait, of all threads together, for each row and each neighbor it asks for: 24 bytes. With
// fewer, many are looked at before limits are high: of 50,000 rows and 32 neighbors, 230 pairs a row were
// scored, not 140.
constexpr std::size_t postponed_pairs = 2;

/// What the rows of one side have found, by position.
class Lists {
  public:
    Lists(const Operand& mine, const Operand& others, std::size_t k, bool shared)
        : shared_(shared),
          mine_(mine),
          others_(others),
          k_(std::min(k, others.n)),
          sorted_(k_ <= most_sorted),
          stride_(k_ + 1),
          best_(mine.n * stride_, Ranked::none),
          limits_(mine.n),
          locks_(mine.n) {
        for (std::size_t i = 0; i < mine.n; ++i) {
            best_[i * stride_ + k_] = std::numeric_limits<std::uint64_t>::max();
            limits_[i].store(nothing, std::memory_order_relaxed);
        }
    }
    std::size_t k() const noexcept { return k_; }
    float limit(std::size_t i) const noexcept { return limits_[i].load(std::memory_order_relaxed); }

    /// A canonical score of position i and one of the other side.
    void add(std::size_t i, float score, std::size_t other) noexcept {
        if (score < limit(i) || k_ == 0) return;
        const std::uint64_t found = Ranked::of(score, others_.order[other]);
        const Lock lock(*this, i);
        std::uint64_t* best = best_.data() + i * stride_;
        if (found <= best[0]) return;
        if (sorted_) {
            mine_.kernels->insert(best, k_, found);
        } else {
            std::pop_heap(best, best + k_, std::greater<>());
            best[k_ - 1] = found;
            std::push_heap(best, best + k_, std::greater<>());
        }
        if (best[0] != Ranked::none) limits_[i].store(Ranked::score(best[0]), std::memory_order_relaxed);
    }

    void write(std::size_t i, std::size_t k, std::int64_t* rows, float* similarities) {
        std::uint64_t* best = best_.data() + i * stride_;
        if (!sorted_) std::sort(best, best + k_);
        const std::size_t at = mine_.order[i] * k;
        for (std::size_t r = 0; r < k; ++r) {
            const std::uint64_t found = r < k_ ? best[k_ - 1 - r] : Ranked::none;
            const bool is_there = found != Ranked::none;
            rows[at + r] = is_there ? others_.rows[Ranked::number(found)] : -1;
            similarities[at + r] = is_there ? Ranked::score(found) : static_cast<float>(rowwise::quiet_nan);
        }
    }

  private:
    class Lock {
      public:
        Lock(Lists& lists, std::size_t i) noexcept : flag_(lists.shared_ ? &lists.locks_[i] : nullptr) {
            while (flag_ != nullptr && flag_->test_and_set(std::memory_order_acquire)) {
            }
        }
        ~Lock() {
            if (flag_ != nullptr) flag_->clear(std::memory_order_release);
        }
        Lock(const Lock&) = delete;
        Lock& operator=(const Lock&) = delete;

      private:
        std::atomic_flag* flag_;
    };

    const bool shared_;  // by several threads: a lock is a fifth of the time of one
    const Operand &mine_, &others_;
    const std::size_t k_;
    const bool sorted_;  // else a heap; the worst first in both
    const std::size_t stride_;
    std::vector<std::uint64_t> best_;  // k a row, and the largest number after them
    std::vector<std::atomic<float>> limits_;
    std::vector<std::atomic_flag> locks_;
};

/// Positions of a pair and an upper bound of its score.
struct Postponed {
    std::uint32_t row, col;
    float upper;
};

template <bool with_columns>
struct TopK {
    struct Slot {
        std::vector<Postponed> postponed;
        std::uint64_t scored_pairs = 0;
    };
    static constexpr bool moving = true, both = with_columns;
    const Operand &a, &b;
    Lists& rows;
    Lists& cols;
    std::size_t most_postponed;  // of a thread
    float row_limit(std::size_t i) const noexcept { return rows.limit(i); }
    float col_limit(std::size_t j) const noexcept { return cols.limit(j); }
    bool settled(std::size_t, std::size_t) const noexcept { return false; }
    bool nearest_only() const noexcept { return rows.k() == 1; }
    void postpone(Slot& slot, std::size_t i, std::size_t j, float upper) const {
        if (slot.postponed.empty()) slot.postponed.reserve(most_postponed);
        slot.postponed.push_back({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(j), upper});
        if (slot.postponed.size() < most_postponed) return;
        const auto end = std::remove_if(slot.postponed.begin(), slot.postponed.end(),
                                        [&](const Postponed& pair) { return !matters(pair); });
        slot.postponed.erase(end, slot.postponed.end());
        if (slot.postponed.size() < most_postponed / 2) return;
        slot.scored_pairs += score(slot.postponed.data(), slot.postponed.size());
        slot.postponed.clear();
    }
    void take(Slot&, std::size_t i, std::size_t j, float score) const { add(i, j, score); }
    bool done(Slot&) const noexcept { return false; }

    /// Score those of the pairs that can still reach a limit; how many these were.
    std::uint64_t score(const Postponed* pairs, std::size_t count) const {
        constexpr std::size_t most = 64;
        std::uint32_t mine[most], others[most];
        float scores[most];
        std::uint64_t scored = 0;
        for (std::size_t p = 0; p < count;) {
            std::size_t n = 0;
            for (; p < count && n < most; ++p)
                if (matters(pairs[p])) mine[n] = pairs[p].row, others[n++] = pairs[p].col;
            a.scores(mine, b, others, n, scores);
            for (std::size_t q = 0; q < n; ++q) add(mine[q], others[q], scores[q]);
            scored += n;
        }
        return scored;
    }

  private:
    // A bound may be NaN or infinite where float32 overflows; then the pair is scored.
    bool matters(const Postponed& pair) const noexcept {
        return !(pair.upper < row_limit(pair.row)) || (both && !(pair.upper < col_limit(pair.col)));
    }
    void add(std::size_t i, std::size_t j, float score) const {
        rows.add(i, score, j);
        if (both) cols.add(j, score, i);
    }
};

bool write(Lists& lists, const Operand& o, std::size_t k, std::int64_t* rows, float* similarities,
           std::size_t threads, const Poll& poll) {
    constexpr std::size_t block = 1024;
    return parallel_for((o.n + block - 1) / block, threads,
                        [&](std::size_t t) {
                            for (std::size_t i = t * block; i < std::min(o.n, (t + 1) * block); ++i)
                                lists.write(i, k, rows, similarities);
                        },
                        [&] { return poll && poll(1.0); });
}

template <bool with_columns>
bool find(const Operand& a, const Operand* b, Lists& rows, Lists& cols, std::size_t threads, const Poll& poll,
          Work& work) {
    const Operand& other = b != nullptr ? *b : a;
    const std::size_t asking = a.n + (b != nullptr && with_columns ? b->n : 0);
    TopK<with_columns> epilogue{
        a, other, rows, cols,
        std::clamp<std::size_t>(postponed_pairs * asking * (rows.k() + 1) / thread_count(threads), 1 << 12,
                                1 << 24)};
    std::vector<std::vector<Postponed>> postponed;
    Join<TopK<with_columns>> join(a, b, epilogue);
    if (!join.run(threads, poll, work, [&](typename TopK<with_columns>::Slot& slot) {
            work.scored_pairs += slot.scored_pairs;
            postponed.push_back(std::move(slot.postponed));
        }))
        return false;
    struct Part {
        const Postponed* pairs;
        std::size_t count;
    };
    constexpr std::size_t most = 4096;
    std::vector<Part> parts;
    for (const auto& each : postponed)
        for (std::size_t p = 0; p < each.size(); p += most)
            parts.push_back({each.data() + p, std::min(most, each.size() - p)});
    std::atomic<std::uint64_t> scored{0};
    const bool complete = parallel_for(
        parts.size(), threads,
        [&](std::size_t t) {
            const DefaultFloatEnvironment environment;
            scored.fetch_add(epilogue.score(parts[t].pairs, parts[t].count), std::memory_order_relaxed);
        },
        [&] { return poll && poll(1.0); });
    work.scored_pairs += scored.load();
    return complete;
}

}  // namespace

bool top_k(const Operand& a, const Operand* b, std::size_t k, std::int64_t* rows_a, float* similarities_a,
           std::int64_t* rows_b, float* similarities_b, std::size_t threads, const Poll& poll, Work& work) {
    const bool shared = thread_count(threads) > 1;
    Lists rows(a, b != nullptr ? *b : a, k, shared);
    if (b == nullptr)
        return find<true>(a, b, rows, rows, threads, poll, work) &&
               write(rows, a, k, rows_a, similarities_a, threads, poll);
    if (rows_b == nullptr)
        return find<false>(a, b, rows, rows, threads, poll, work) &&
               write(rows, a, k, rows_a, similarities_a, threads, poll);
    Lists cols(*b, a, k, shared);
    return find<true>(a, b, rows, cols, threads, poll, work) &&
           write(rows, a, k, rows_a, similarities_a, threads, poll) &&
           write(cols, *b, k, rows_b, similarities_b, threads, poll);
}

}  // namespace pycurate::fused_similarity
