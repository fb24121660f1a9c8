// The k nearest. A row keeps candidates by the upper bound of their score; only when its list is full are the
// best k by bound scored, the k-th score raises the row's limit, and what cannot reach it goes.
#include "kernels/fused_similarity/join.h"

namespace pycurate::fused_similarity {
namespace {

constexpr float nothing = -std::numeric_limits<float>::infinity();

struct Candidate {
    float score;          // an upper bound, or the score itself
    std::uint32_t other;  // position; the highest bit: the score itself
};
constexpr std::uint32_t scored_bit = 0x80000000u;

/// Lists of one side, by position.
class Lists {
  public:
    Lists(const Operand& mine, const Operand& others, std::size_t k, bool shared)
        : shared_(shared),
          mine_(mine),
          others_(others),
          k_(std::min(k, others.n)),
          // Six times k: of a flat spectrum's 50,000 rows about 3 k stay possible after the k best were
          // scored.
          capacity_(std::max<std::size_t>(12 * k_, 64)),
          candidates_(mine.n * capacity_),
          sizes_(mine.n, 0),
          limits_(mine.n),
          locks_(mine.n) {
        for (auto& limit : limits_) limit.store(nothing, std::memory_order_relaxed);
    }
    float limit(std::size_t i) const noexcept { return limits_[i].load(std::memory_order_relaxed); }

    void add(std::size_t i, Candidate candidate, std::uint64_t& scored_pairs) {
        if (k_ == 0) return;
        while (shared_ && locks_[i].test_and_set(std::memory_order_acquire)) {
        }
        Candidate* list = candidates_.data() + i * capacity_;
        if (sizes_[i] == capacity_) shrink(i, scored_pairs);
        if (!(candidate.score < limit(i))) list[sizes_[i]++] = candidate;
        if (shared_) locks_[i].clear(std::memory_order_release);
    }

    void write(std::size_t i, std::size_t k, std::int64_t* rows, float* similarities,
               std::uint64_t& scored_pairs) {
        const std::size_t at = mine_.order[i] * k;
        std::fill_n(rows + at, k, std::int64_t{-1});
        std::fill_n(similarities + at, k, static_cast<float>(rowwise::quiet_nan));
        if (k_ == 0) return;
        if (sizes_[i] > k_) shrink(i, scored_pairs);
        score_all(i, scored_pairs);
        const Candidate* list = candidates_.data() + i * capacity_;
        for (std::size_t r = 0; r < std::min<std::size_t>(sizes_[i], k_); ++r) {
            rows[at + r] = others_.row_at(list[r].other & ~scored_bit);
            similarities[at + r] = list[r].score;
        }
    }

  private:
    bool better(const Candidate& x, const Candidate& y) const noexcept {
        if (x.score != y.score) return x.score > y.score;
        return others_.row_at(x.other & ~scored_bit) < others_.row_at(y.other & ~scored_bit);
    }
    /// Score the first `count` candidates that are not.
    void score(std::size_t i, std::size_t count, std::uint64_t& scored_pairs) noexcept {
        Candidate* list = candidates_.data() + i * capacity_;
        Candidate* waiting[Operand::most_scores];
        std::uint32_t others[Operand::most_scores];
        float scores[Operand::most_scores];
        for (std::size_t c = 0; c < count;) {
            std::size_t n = 0;
            for (; c < count && n < Operand::most_scores; ++c)
                if ((list[c].other & scored_bit) == 0) waiting[n] = list + c, others[n++] = list[c].other;
            mine_.scores(i, others_, others, n, scores);
            scored_pairs += n;
            for (std::size_t k = 0; k < n; ++k)
                *waiting[k] = {scores[k] == scores[k] ? scores[k] : nothing, others[k] | scored_bit};
        }
    }
    void drop_nothings(std::size_t i) noexcept {
        Candidate* list = candidates_.data() + i * capacity_;
        Candidate* end =
            std::remove_if(list, list + sizes_[i], [](const Candidate& c) { return c.score == nothing; });
        sizes_[i] = static_cast<std::uint32_t>(end - list);
    }
    /// Every candidate scored, the best k kept in order.
    void score_all(std::size_t i, std::uint64_t& scored_pairs) {
        Candidate* list = candidates_.data() + i * capacity_;
        score(i, sizes_[i], scored_pairs);
        drop_nothings(i);
        const std::size_t kept = std::min<std::size_t>(sizes_[i], k_);
        std::partial_sort(list, list + kept, list + sizes_[i],
                          [this](const Candidate& x, const Candidate& y) { return better(x, y); });
        sizes_[i] = static_cast<std::uint32_t>(kept);
        if (kept == k_) limits_[i].store(list[k_ - 1].score, std::memory_order_relaxed);
    }
    /// Make room. The k best by bound are scored: their least score is one that k rows reach.
    void shrink(std::size_t i, std::uint64_t& scored_pairs) {
        Candidate* list = candidates_.data() + i * capacity_;
        Candidate* end = list + sizes_[i];
        std::nth_element(list, list + (k_ - 1), end,
                         [](const Candidate& x, const Candidate& y) { return x.score > y.score; });
        score(i, k_, scored_pairs);
        float least = list[0].score;
        for (std::size_t c = 1; c < k_; ++c) least = std::min(least, list[c].score);
        end = std::remove_if(list, end, [least](const Candidate& c) { return c.score < least; });
        sizes_[i] = static_cast<std::uint32_t>(end - list);
        if (least > limit(i)) limits_[i].store(least, std::memory_order_relaxed);
        if (sizes_[i] > capacity_ / 4 * 3) score_all(i, scored_pairs);
    }

    const bool shared_;  // by several threads: a lock is a fifth of the time of one
    const Operand &mine_, &others_;
    const std::size_t k_, capacity_;
    AlignedBuffer<Candidate> candidates_;
    std::vector<std::uint32_t> sizes_;
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
    bool wants(Slot& slot, std::size_t i, std::size_t j, float upper, const Lower&) const {
        add(slot, i, j, upper, 0);
        return false;
    }
    void take(Slot& slot, std::size_t i, std::size_t j, float score) const {
        add(slot, i, j, score, scored_bit);
    }
    void add(Slot& slot, std::size_t i, std::size_t j, float score, std::uint32_t bit) const {
        // A bound may be NaN where float32 overflows: it says nothing, so the pair stays possible.
        const float bound = score == score ? score : std::numeric_limits<float>::infinity();
        if (!(bound < rows.limit(i)))
            rows.add(i, {bound, static_cast<std::uint32_t>(j) | bit}, slot.scored_pairs);
        if (both && !(bound < cols.limit(j)))
            cols.add(j, {bound, static_cast<std::uint32_t>(i) | bit}, slot.scored_pairs);
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
