// The loop over bands, buckets and tiles, and what is done with the pairs.
#include <algorithm>
#include <atomic>
#include <bit>
#include <mutex>
#include <utility>

#include "common/disjoint_sets.h"
#include "common/thread_pool.h"
#include "kernels/hamming/bands.h"

namespace pycurate::hamming {
namespace {

/// Every key of `bits` bits with at most `radius` of them set, 0 first.
std::vector<std::uint32_t> masks_of(unsigned bits, unsigned radius) {
    std::vector<std::uint32_t> masks{0};
    std::size_t begin = 0;
    for (unsigned set = 0; set < std::min(bits, radius); ++set) {
        const std::size_t end = masks.size();
        for (std::size_t i = begin; i < end; ++i)
            for (auto bit = static_cast<unsigned>(std::bit_width(masks[i])); bit < bits; ++bit)
                masks.push_back(masks[i] | std::uint32_t{1} << bit);
        begin = end;
    }
    return masks;
}

/// One band's share of a join. An epilogue has
///   Slot                     what one task gathers
///   once                     whether a pair may be taken once only
///   take(slot, i, j, d)      rows i of a and j of b are at distance d
///   settled(i, j, ...)       nothing among these rows can change the result
///   done(slot)               true ends the join
///   merge(slot)              at the end of a task, one at a time
template <class Epilogue>
class BandJoin {
  public:
    BandJoin(Epilogue& epilogue, const BandedRows& a, const BandedRows& b, bool self, std::size_t words,
             unsigned radius, const std::vector<Band>& bands, std::size_t at)
        : epilogue_(epilogue),
          a_(a),
          b_(b),
          self_(self),
          words_(words),
          radius_(radius),
          bands_(bands),
          at_(at),
          masks_(masks_of(bands[at].bits, bands[at].radius)),
          near_(active_kernels().near) {}

    /// False: stopped by `poll`.
    bool run(std::size_t threads, const Poll& poll) {
        // A task is at most about 2^26 pairs, 20 ms, so that it ends soon after Ctrl-C.
        std::size_t largest = 0;
        for (std::size_t key = 0; key + 1 < b_.buckets.starts.size(); ++key)
            largest = std::max<std::size_t>(largest, b_.buckets.starts[key + 1] - b_.buckets.starts[key]);
        const std::size_t per_row = masks_.size() + std::min(b_.n, masks_.size() * largest);
        rows_ = std::clamp<std::size_t>((std::size_t{1} << 26) / std::max<std::size_t>(per_row, 1), 1, 4096);
        const std::size_t tasks = (a_.n + rows_ - 1) / rows_;
        std::atomic<std::size_t> done{0};
        const auto stop = [&] {
            const double share = static_cast<double>(done.load(std::memory_order_relaxed)) /
                                 static_cast<double>(std::max<std::size_t>(tasks, 1));
            return poll && poll((static_cast<double>(at_) + share) / static_cast<double>(bands_.size()));
        };
        return parallel_for(
            tasks, threads,
            [&](std::size_t t) {
                task(t * rows_, std::min(a_.n, (t + 1) * rows_));
                done.fetch_add(1, std::memory_order_relaxed);
            },
            stop);
    }

  private:
    struct Task {
        typename Epilogue::Slot slot;
        std::vector<Hit> hits = std::vector<Hit>(tile_rows * tile_cols);
        bool dense = false;  // the last tile was full of pairs, so the next may be settled
    };

    void task(std::size_t begin, std::size_t end) {
        Task work;
        const auto& starts = a_.buckets.starts;
        for (std::size_t p = begin; p < end && !ended_.load(std::memory_order_relaxed);) {
            const auto key = static_cast<std::uint32_t>(a_.buckets.keyed[p] >> 32);
            const std::size_t until = std::min<std::size_t>(end, starts[key + 1]);
            bucket(work, key, p, until);
            p = until;
        }
        const std::lock_guard lock(merging_);
        epilogue_.merge(work.slot);
    }

    /// Positions from `begin` to `end`, all of one key, against the buckets near it.
    void bucket(Task& work, std::uint32_t key, std::size_t begin, std::size_t end) {
        const auto& starts = b_.buckets.starts;
        for (std::size_t i = begin; i < end; i += tile_rows) {
            const std::size_t stop = std::min(end, i + tile_rows);
            for (const std::uint32_t mask : masks_) {
                const std::uint32_t other = key ^ mask;
                if (self_ && other < key) continue;
                if (self_ && mask == 0) {
                    tile(work, i, stop, i, stop, true);
                    cross(work, i, stop, stop, starts[key + 1]);
                } else {
                    cross(work, i, stop, starts[other], starts[other + 1]);
                }
                if (ended_.load(std::memory_order_relaxed)) return;
            }
        }
    }

    void cross(Task& work, std::size_t i, std::size_t i_end, std::size_t j, std::size_t j_end) {
        for (; j < j_end; j += tile_cols) tile(work, i, i_end, j, std::min(j_end, j + tile_cols), false);
    }

    void tile(Task& work, std::size_t i, std::size_t i_end, std::size_t j, std::size_t j_end, bool upper) {
        if constexpr (Epilogue::settles) {
            if (work.dense) work.dense = settled(i, i_end, j, j_end);
            if (work.dense) return;
        }
        const std::size_t found = near_({a_.planes.data() + i, a_.n}, i_end - i, {b_.planes.data() + j, b_.n},
                                        j_end - j, words_, radius_, upper, work.hits.data());
        if (found == 0) return;
        for (std::size_t h = 0; h < found; ++h) {
            const Hit hit = work.hits[h];
            const std::size_t p = i + hit.row, q = j + hit.col;
            if (Epilogue::once && found_before(p, q)) continue;
            epilogue_.take(work.slot, a_.buckets.row(p), b_.buckets.row(q), hit.distance);
        }
        work.dense = 4 * found > (i_end - i) * (j_end - j) && found >= tile_rows;
        if (epilogue_.done(work.slot)) ended_.store(true, std::memory_order_relaxed);
    }

    bool settled(std::size_t i, std::size_t i_end, std::size_t j, std::size_t j_end) {
        const std::uint32_t first = a_.buckets.row(i);
        for (std::size_t p = i; p < i_end; ++p)
            if (!epilogue_.settled(first, a_.buckets.row(p))) return false;
        for (std::size_t q = j; q < j_end; ++q)
            if (!epilogue_.settled(first, epilogue_.right + b_.buckets.row(q))) return false;
        return true;
    }

    /// Whether an earlier band brought the two together.
    bool found_before(std::size_t p, std::size_t q) const noexcept {
        for (std::size_t band = 0; band < at_; ++band) {
            const std::uint32_t differing =
                key_of(bands_[band], [&](std::size_t w) { return a_.planes[w * a_.n + p]; }) ^
                key_of(bands_[band], [&](std::size_t w) { return b_.planes[w * b_.n + q]; });
            if (static_cast<unsigned>(std::popcount(differing)) <= bands_[band].radius) return true;
        }
        return false;
    }

    Epilogue& epilogue_;
    const BandedRows &a_, &b_;
    bool self_;
    std::size_t words_;
    unsigned radius_;
    const std::vector<Band>& bands_;
    std::size_t at_;
    std::vector<std::uint32_t> masks_;
    decltype(Kernels::near) near_;
    std::size_t rows_ = 1;
    std::atomic<bool> ended_{false};
    std::mutex merging_;

  public:
    bool ended() const noexcept { return ended_.load(); }
};

template <class Epilogue>
bool join(Epilogue& epilogue, Codes a, const Codes* b, std::size_t words, unsigned radius,
          const std::vector<Band>& bands, std::size_t threads, const Poll& poll) {
    for (std::size_t at = 0; at < bands.size(); ++at) {
        const auto stop = [&] {
            return poll && poll(static_cast<double>(at) / static_cast<double>(bands.size()));
        };
        BandedRows rows_a, rows_b;
        if (!order_by_band(a, words, bands[at], threads, stop, rows_a)) return false;
        if (b != nullptr && !order_by_band(*b, words, bands[at], threads, stop, rows_b)) return false;
        BandJoin<Epilogue> band(epilogue, rows_a, b != nullptr ? rows_b : rows_a, b == nullptr, words, radius,
                                bands, at);
        if (!band.run(threads, poll)) return false;
        if (band.ended()) return true;
    }
    return true;
}

struct PairsWithin {
    using Slot = std::vector<Pair>;
    static constexpr bool once = true, settles = false;
    bool self;
    std::size_t max_pairs;
    std::vector<Pair>& out;
    std::atomic<bool> too_many{false};

    void take(Slot& slot, std::uint32_t i, std::uint32_t j, std::uint32_t distance) const {
        if (self && i > j) std::swap(i, j);
        slot.push_back({i, j, distance});
    }
    bool settled(std::size_t, std::size_t) const noexcept { return false; }
    bool done(const Slot& slot) noexcept {
        if (slot.size() > max_pairs) too_many.store(true);
        return too_many.load(std::memory_order_relaxed);
    }
    void merge(Slot& slot) {
        if (out.size() + slot.size() > max_pairs) too_many.store(true);
        if (!too_many.load()) out.insert(out.end(), slot.begin(), slot.end());
    }
};

struct ComponentsWithin {
    struct Slot {};
    static constexpr bool once = false, settles = true;
    DisjointSets sets;
    std::size_t right;  // the number of row 0 of b

    void take(Slot&, std::uint32_t i, std::uint32_t j, std::uint32_t) noexcept { sets.unite(i, right + j); }
    bool settled(std::size_t i, std::size_t j) noexcept { return sets.root(i) == sets.root(j); }
    bool done(const Slot&) const noexcept { return false; }
    void merge(Slot&) const noexcept {}
};

struct NearestEarlier {
    struct Slot {};
    static constexpr bool once = false, settles = false;
    const std::uint32_t *ranks, *b_ranks;          // the latter null in a self-join
    std::vector<std::atomic<std::uint64_t>> best;  // distance in the high half, rank in the low

    void take(Slot&, std::uint32_t i, std::uint32_t j, std::uint32_t distance) noexcept {
        if (b_ranks == nullptr && ranks[i] < ranks[j]) std::swap(i, j);
        const std::uint32_t other = (b_ranks != nullptr ? b_ranks : ranks)[j];
        if (other >= ranks[i]) return;
        const std::uint64_t mine = std::uint64_t{distance} << 32 | other;
        std::uint64_t seen = best[i].load(std::memory_order_relaxed);
        while (mine < seen && !best[i].compare_exchange_weak(seen, mine, std::memory_order_relaxed)) {
        }
    }
    bool settled(std::size_t, std::size_t) const noexcept { return false; }
    bool done(const Slot&) const noexcept { return false; }
    void merge(Slot&) const noexcept {}
};

}  // namespace

bool pairs_within(Codes a, const Codes* b, std::size_t words, unsigned radius, const std::vector<Band>& bands,
                  std::size_t max_pairs, std::vector<Pair>& out, bool& too_many, std::size_t threads,
                  const Poll& poll) {
    PairsWithin epilogue{b == nullptr, max_pairs, out};
    const bool complete = join(epilogue, a, b, words, radius, bands, threads, poll);
    too_many = epilogue.too_many.load();
    if (!complete || too_many) return complete;
    std::sort(out.begin(), out.end(),
              [](const Pair& x, const Pair& y) { return x.row != y.row ? x.row < y.row : x.col < y.col; });
    return true;
}

bool components_within(Codes a, std::size_t words, unsigned radius, const std::vector<Band>& bands,
                       std::int64_t* labels, std::size_t threads, const Poll& poll) {
    ComponentsWithin epilogue{DisjointSets(a.n), 0};
    if (!join(epilogue, a, nullptr, words, radius, bands, threads, poll)) return false;
    for (std::size_t i = 0; i < a.n; ++i) labels[i] = epilogue.sets.root(i);
    return true;
}

bool linkage_within(Codes a, const Codes* b, std::size_t words, unsigned radius, int bands,
                    std::int64_t* joined, std::int32_t* distances, std::size_t threads, const Poll& poll) {
    const bool self = b == nullptr;
    const std::size_t b_rows = self ? a.n : b->n, rows = self ? a.n : a.n + b->n;
    ComponentsWithin epilogue{DisjointSets(rows), self ? 0 : a.n};
    std::fill_n(joined, rows, std::int64_t{-1});
    std::fill_n(distances, rows, std::int32_t{-1});
    // Radius by radius: the last costs most by far, as the pairs to look at grow with every bit.
    for (unsigned reached = 0; reached <= radius; ++reached) {
        const auto plan =
            plan_bands(a.n, b_rows, self, words, reached, std::min(bands, static_cast<int>(reached) + 1));
        const auto part = [&](double done) {
            return poll && poll((static_cast<double>(reached) + done) / static_cast<double>(radius + 1));
        };
        if (!join(epilogue, a, b, words, reached, plan, threads, part)) return false;
        for (std::size_t i = 0; i < rows; ++i)
            if (joined[i] < 0 && epilogue.sets.root(i) != i) {
                joined[i] = epilogue.sets.root(i);
                distances[i] = static_cast<std::int32_t>(reached);
            }
    }
    return true;
}

bool nearest_earlier(Codes a, const Codes* b, std::size_t words, unsigned radius,
                     const std::vector<Band>& bands, const std::uint32_t* ranks, const std::uint32_t* b_ranks,
                     std::int64_t* best, std::int32_t* distances, std::size_t threads, const Poll& poll) {
    NearestEarlier epilogue{ranks, b_ranks, std::vector<std::atomic<std::uint64_t>>(a.n)};
    for (auto& value : epilogue.best) value.store(~std::uint64_t{0}, std::memory_order_relaxed);
    if (!join(epilogue, a, b, words, radius, bands, threads, poll)) return false;
    for (std::size_t i = 0; i < a.n; ++i) {
        const std::uint64_t found = epilogue.best[i].load(std::memory_order_relaxed);
        const bool none = found == ~std::uint64_t{0};
        best[i] = none ? -1 : static_cast<std::int64_t>(found & 0xffff'ffff);
        distances[i] = none ? -1 : static_cast<std::int32_t>(found >> 32);
    }
    return true;
}

}  // namespace pycurate::hamming
