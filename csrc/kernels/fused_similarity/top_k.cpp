// The k nearest. A row keeps its k best scores so far, and what their worst says is its limit. A pair whose
// bounds are centred above a limit is scored at once, so that limits are never stale; one that may only just
// pass is kept by its upper bound and mostly falls to a later limit.
#include "kernels/fused_similarity/join.h"

namespace pycurate::fused_similarity {
namespace {

constexpr float nothing = -std::numeric_limits<float>::infinity();

/// A row and its score, or an upper bound of it.
struct Candidate {
    float score;
    std::uint32_t other;  // position
};

/// What the rows of one side have found, by position.
class Lists {
  public:
    Lists(const Operand& mine, const Operand& others, std::size_t k, bool shared)
        : shared_(shared),
          mine_(mine),
          others_(others),
          k_(std::min(k, others.n)),
          most_kept_(std::max<std::size_t>(3 * k_, 48)),
          stride_(k_ + most_kept_),
          candidates_(mine.n * stride_),
          found_(mine.n, 0),
          kept_(mine.n, 0),
          limits_(mine.n),
          locks_(mine.n) {
        for (auto& limit : limits_) limit.store(nothing, std::memory_order_relaxed);
    }
    float limit(std::size_t i) const noexcept { return limits_[i].load(std::memory_order_relaxed); }

    /// A canonical score.
    void add(std::size_t i, Candidate candidate) {
        if (candidate.score < limit(i) || k_ == 0) return;
        const Lock lock(*this, i);
        insert(i, candidate);
    }
    /// An upper bound.
    void keep(std::size_t i, Candidate candidate, std::uint64_t& scored_pairs) {
        const Lock lock(*this, i);
        Candidate* kept = kept_of(i);
        if (kept_[i] == most_kept_) {
            forget(i);
            if (kept_[i] > most_kept_ / 4 * 3) score_kept(i, scored_pairs);
        }
        kept[kept_[i]++] = candidate;
    }

    void write(std::size_t i, std::size_t k, std::int64_t* rows, float* similarities,
               std::uint64_t& scored_pairs) {
        const std::size_t at = mine_.order[i] * k;
        std::fill_n(rows + at, k, std::int64_t{-1});
        std::fill_n(similarities + at, k, static_cast<float>(rowwise::quiet_nan));
        forget(i);
        score_kept(i, scored_pairs);
        Candidate* found = found_of(i);
        std::sort(found, found + found_[i], Better{others_});
        for (std::size_t r = 0; r < found_[i]; ++r) {
            rows[at + r] = others_.row_at(found[r].other);
            similarities[at + r] = found[r].score;
        }
    }

  private:
    /// Ties to the lower row.
    struct Better {
        const Operand& others;
        bool operator()(const Candidate& x, const Candidate& y) const noexcept {
            if (x.score != y.score) return x.score > y.score;
            return others.row_at(x.other) < others.row_at(y.other);
        }
    };
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

    Candidate* found_of(std::size_t i) noexcept { return candidates_.data() + i * stride_; }
    Candidate* kept_of(std::size_t i) noexcept { return found_of(i) + k_; }

    /// Into the k best, a heap whose worst is at the front.
    void insert(std::size_t i, Candidate candidate) {
        const Better better{others_};
        Candidate* found = found_of(i);
        if (found_[i] < k_) {
            found[found_[i]++] = candidate;
            std::push_heap(found, found + found_[i], better);
        } else if (better(candidate, found[0])) {
            std::pop_heap(found, found + k_, better);
            found[k_ - 1] = candidate;
            std::push_heap(found, found + k_, better);
        }
        if (found_[i] == k_) limits_[i].store(found[0].score, std::memory_order_relaxed);
    }
    /// Drop what cannot reach the limit any more.
    void forget(std::size_t i) noexcept {
        Candidate *kept = kept_of(i), *end = kept + kept_[i];
        const float least = limit(i);
        end = std::remove_if(kept, end, [least](const Candidate& c) { return c.score < least; });
        kept_[i] = static_cast<std::uint32_t>(end - kept);
    }
    void score_kept(std::size_t i, std::uint64_t& scored_pairs) {
        const Candidate* kept = kept_of(i);
        constexpr std::size_t most = 64;
        std::uint32_t mine[most], others[most];
        float scores[most];
        std::fill_n(mine, most, static_cast<std::uint32_t>(i));
        for (std::size_t c = 0; c < kept_[i];) {
            std::size_t n = 0;
            for (; c < kept_[i] && n < most; ++c) others[n++] = kept[c].other;
            mine_.scores(mine, others_, others, n, scores);
            scored_pairs += n;
            for (std::size_t k = 0; k < n; ++k)
                if (scores[k] >= limit(i)) insert(i, {scores[k], others[k]});
        }
        kept_[i] = 0;
    }

    const bool shared_;  // by several threads: a lock is a fifth of the time of one
    const Operand &mine_, &others_;
    const std::size_t k_, most_kept_, stride_;
    AlignedBuffer<Candidate> candidates_;  // per row: the best, then what is kept
    std::vector<std::uint32_t> found_, kept_;
    std::vector<std::atomic<float>> limits_;
    std::vector<std::atomic_flag> locks_;
};

template <bool with_columns>
struct TopK {
    struct Slot {
        std::uint64_t scored_pairs = 0;
    };
    static constexpr bool moving = true, both = with_columns;
    Lists& rows;
    Lists& cols;
    float row_limit(std::size_t i) const noexcept { return rows.limit(i); }
    float col_limit(std::size_t j) const noexcept { return cols.limit(j); }
    bool settled(std::size_t, std::size_t) const noexcept { return false; }
    template <class Lower>
    bool wants(Slot& slot, std::size_t i, std::size_t j, float upper, const Lower& lower) const {
        const float row_limit = rows.limit(i), col_limit = both ? cols.limit(j) : 0.0f;
        // A bound may be NaN or infinite where float32 overflows; then the pair is scored.
        const bool for_row = !(upper < row_limit), for_col = both && !(upper < col_limit);
        if (!for_row && !for_col) return false;
        const float middle = 0.5f * (upper + lower());
        if ((for_row && !(middle < row_limit)) || (for_col && !(middle < col_limit))) return true;
        if (for_row) rows.keep(i, {upper, static_cast<std::uint32_t>(j)}, slot.scored_pairs);
        if (for_col) cols.keep(j, {upper, static_cast<std::uint32_t>(i)}, slot.scored_pairs);
        return false;
    }
    void take(Slot&, std::size_t i, std::size_t j, float score) const {
        rows.add(i, {score, static_cast<std::uint32_t>(j)});
        if (both) cols.add(j, {score, static_cast<std::uint32_t>(i)});
    }
    bool done(Slot&) const noexcept { return false; }
};

bool write(Lists& lists, const Operand& o, std::size_t k, std::int64_t* rows, float* similarities,
           std::size_t threads, const Poll& poll, Work& work) {
    constexpr std::size_t block = 64;
    std::atomic<std::uint64_t> scored{0};
    const bool complete =
        parallel_for((o.n + block - 1) / block, threads,
                     [&](std::size_t t) {
                         const DefaultFloatEnvironment environment;
                         std::uint64_t pairs = 0;
                         for (std::size_t i = t * block; i < std::min(o.n, (t + 1) * block); ++i)
                             lists.write(i, k, rows, similarities, pairs);
                         scored.fetch_add(pairs, std::memory_order_relaxed);
                     },
                     [&] { return poll && poll(1.0); });
    work.scored_pairs += scored.load();
    return complete;
}

template <bool with_columns>
bool find(const Operand& a, const Operand* b, Lists& rows, Lists& cols, std::size_t threads, const Poll& poll,
          Work& work) {
    TopK<with_columns> epilogue{rows, cols};
    Join<TopK<with_columns>> join(a, b, epilogue);
    return join.run(threads, poll, work,
                    [&](typename TopK<with_columns>::Slot& slot) { work.scored_pairs += slot.scored_pairs; });
}

}  // namespace

bool top_k(const Operand& a, const Operand* b, std::size_t k, std::int64_t* rows_a, float* similarities_a,
           std::int64_t* rows_b, float* similarities_b, std::size_t threads, const Poll& poll, Work& work) {
    const bool shared = thread_count(threads) > 1;
    Lists rows(a, b != nullptr ? *b : a, k, shared);
    if (b == nullptr)
        return find<true>(a, b, rows, rows, threads, poll, work) &&
               write(rows, a, k, rows_a, similarities_a, threads, poll, work);
    if (rows_b == nullptr)
        return find<false>(a, b, rows, rows, threads, poll, work) &&
               write(rows, a, k, rows_a, similarities_a, threads, poll, work);
    Lists cols(*b, a, k, shared);
    return find<true>(a, b, rows, cols, threads, poll, work) &&
           write(rows, a, k, rows_a, similarities_a, threads, poll, work) &&
           write(cols, *b, k, rows_b, similarities_b, threads, poll, work);
}

}  // namespace pycurate::fused_similarity
