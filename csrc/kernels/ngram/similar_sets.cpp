// Pairs of similar sets: candidates share a band of their signatures, and each is verified.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <mutex>
#include <numeric>

#include "common/thread_pool.h"
#include "kernels/ngram/hashes.h"
#include "kernels/ngram/ngram.h"
#include "kernels/uid/uid.h"

namespace pycurate::ngram {
namespace {

constexpr std::size_t chunk_rows = 1024;
constexpr std::size_t poll_every = std::size_t{1} << 20;  // comparisons between two looks at the signals

/// Similarity of two candidates, by their places; 0 where their sizes alone keep it below the threshold.
float verified(const Candidates& c, std::size_t i, std::size_t j) noexcept {
    const auto x = static_cast<std::size_t>(c.rows[i]), y = static_cast<std::size_t>(c.rows[j]);
    const std::size_t nx = c.sets.size(x), ny = c.sets.size(y);
    const auto most =
        static_cast<float>(static_cast<double>(std::min(nx, ny)) / static_cast<double>(std::max(nx, ny)));
    if (!(most >= c.threshold)) return 0.0f;
    return jaccard(c.sets.at(x), nx, c.sets.at(y), ny);
}

/// (key, place) of every candidate in one band, sorted: equal keys are a bucket, its places rising.
bool bucket_band(const Candidates& c, std::size_t band, std::vector<uid::Uid>& sorted, std::size_t threads,
                 const Poll& poll) {
    const std::size_t width = c.bands.bands * c.bands.rows;
    sorted.resize(c.g);
    const bool complete = parallel_for(
        (c.g + chunk_rows - 1) / chunk_rows, threads,
        [&](std::size_t chunk) {
            for (std::size_t i = chunk * chunk_rows; i < std::min(c.g, (chunk + 1) * chunk_rows); ++i)
                sorted[i] = {band_key(c.signatures + i * width, band, c.bands.rows), i};
        },
        poll);
    return complete && uid::sort(sorted.data(), c.g, threads, poll);
}

/// True when the two share a band before `band`, in which their pair was looked at.
bool met_before(const Candidates& c, std::size_t band, std::size_t i, std::size_t j) noexcept {
    const std::size_t width = c.bands.bands * c.bands.rows;
    const std::uint32_t *x = c.signatures + i * width, *y = c.signatures + j * width;
    for (std::size_t earlier = 0; earlier < band; ++earlier)
        if (std::memcmp(x + earlier * c.bands.rows, y + earlier * c.bands.rows, c.bands.rows * sizeof *x) ==
            0)
            return true;
    return false;
}

/// Disjoint sets, the root of each its lowest member.
class Groups {
  public:
    explicit Groups(std::size_t n) : parents_(n) { std::iota(parents_.begin(), parents_.end(), 0u); }
    std::uint32_t root(std::uint32_t i) noexcept {
        while (parents_[i] != i) i = parents_[i] = parents_[parents_[i]];
        return i;
    }
    void unite(std::uint32_t i, std::uint32_t j) noexcept {
        const std::uint32_t x = root(i), y = root(j);
        parents_[std::max(x, y)] = std::min(x, y);
    }

  private:
    std::vector<std::uint32_t> parents_;
};

/// Links the places of one bucket. They are kept in parts that are known to be connected, so that a place is
/// compared with a part until one of it is similar: a clump of k near-copies costs about k comparisons, not
/// k^2 / 2.
class BucketLinks {
  public:
    BucketLinks(const Candidates& candidates, Groups& groups, const Poll& poll)
        : candidates_(candidates), groups_(groups), poll_(poll) {}

    bool link(const uid::Uid* begin, const uid::Uid* end) {
        parts_.clear();
        for (; begin != end; ++begin)
            if (!add(static_cast<std::uint32_t>(begin->low))) return false;
        return true;
    }

  private:
    using Part = std::vector<std::uint32_t>;

    bool add(std::uint32_t place) {
        Part own{place};
        std::size_t left = 0;
        for (Part& part : parts_) {
            if (linked(place, part)) {
                if (part.size() > own.size()) std::swap(part, own);
                own.insert(own.end(), part.begin(), part.end());
            } else {
                if (&parts_[left] != &part) parts_[left] = std::move(part);
                ++left;
            }
            if (stopped_) return false;
        }
        parts_.resize(left);
        parts_.push_back(std::move(own));
        return true;
    }
    bool linked(std::uint32_t place, const Part& part) {
        if (groups_.root(place) == groups_.root(part[0])) return true;
        for (const std::uint32_t other : part) {
            if (++looked_ % poll_every == 0 && poll_ && poll_()) {
                stopped_ = true;
                return false;
            }
            if (verified(candidates_, place, other) >= candidates_.threshold) {
                groups_.unite(place, other);
                return true;
            }
        }
        return false;
    }

    const Candidates& candidates_;
    Groups& groups_;
    const Poll& poll_;
    std::vector<Part> parts_;
    std::size_t looked_ = 0;
    bool stopped_ = false;
};

}  // namespace

std::uint64_t band_key(const std::uint32_t* signature, std::size_t band, std::size_t rows) noexcept {
    std::uint64_t polynomial = band + 1;
    for (std::size_t r = 0; r < rows; ++r) polynomial = polynomial * base + signature[band * rows + r];
    return mix(polynomial);
}

float jaccard(const std::uint64_t* x, std::size_t nx, const std::uint64_t* y, std::size_t ny) noexcept {
    std::size_t i = 0, j = 0, common = 0;
    while (i < nx && j < ny) {
        const std::uint64_t u = x[i], v = y[j];
        common += u == v;
        i += u <= v;
        j += v <= u;
    }
    const std::size_t both = nx + ny - common;
    return both == 0 ? 0.0f : static_cast<float>(static_cast<double>(common) / static_cast<double>(both));
}

bool find_copies(const Sets& sets, std::int64_t* copy_of, std::size_t threads, const Poll& poll) {
    std::vector<uid::Uid> sorted(sets.n);
    const bool hashed = parallel_for((sets.n + chunk_rows - 1) / chunk_rows, threads,
                                     [&](std::size_t chunk) {
                                         for (std::size_t i = chunk * chunk_rows;
                                              i < std::min(sets.n, (chunk + 1) * chunk_rows); ++i) {
                                             std::uint64_t polynomial = sets.size(i);
                                             for (std::size_t k = 0; k < sets.size(i); ++k)
                                                 polynomial = polynomial * base + sets.at(i)[k];
                                             sorted[i] = {mix(polynomial), i};
                                         }
                                     },
                                     poll);
    if (!hashed || !uid::sort(sorted.data(), sets.n, threads, poll)) return false;
    std::fill_n(copy_of, sets.n, std::int64_t{-1});
    const auto equal = [&](std::size_t i, std::size_t j) {
        return sets.size(i) == sets.size(j) &&
               std::memcmp(sets.at(i), sets.at(j), sets.size(i) * sizeof(std::uint64_t)) == 0;
    };
    // Of sets with one hash nearly always the first is what the others equal; others are compared with every
    // one that turned out to be different.
    std::vector<std::size_t> firsts;
    for (std::size_t begin = 0, end; begin < sets.n; begin = end) {
        firsts.clear();
        for (end = begin; end < sets.n && sorted[end].high == sorted[begin].high; ++end) {
            const std::size_t i = sorted[end].low;
            if (sets.size(i) == 0) continue;
            const auto same = std::find_if(firsts.begin(), firsts.end(),
                                           [&](std::size_t first) { return equal(first, i); });
            if (same != firsts.end())
                copy_of[i] = static_cast<std::int64_t>(*same);
            else
                firsts.push_back(i);
        }
    }
    return true;
}

bool pairs_above(const Candidates& c, std::size_t max_pairs, std::vector<Pair>& out, bool& too_many,
                 std::size_t threads, const Poll& poll) {
    constexpr std::size_t places = 256;  // of a task
    std::vector<uid::Uid> sorted;
    std::atomic<std::size_t> found{0};
    std::mutex guard;
    too_many = false;
    for (std::size_t band = 0; band < c.bands.bands && !too_many; ++band) {
        if (!bucket_band(c, band, sorted, threads, poll)) return false;
        const auto look = [&](std::size_t task) {
            std::vector<Pair> pairs;
            for (std::size_t p = task * places; p < std::min(c.g, (task + 1) * places); ++p) {
                const std::size_t before = pairs.size(), i = sorted[p].low;
                for (std::size_t q = p + 1; q < c.g && sorted[q].high == sorted[p].high; ++q) {
                    const std::size_t j = sorted[q].low;
                    if (met_before(c, band, i, j)) continue;
                    const float similarity = verified(c, i, j);
                    if (similarity >= c.threshold) pairs.push_back({c.rows[i], c.rows[j], similarity});
                }
                const std::size_t more = pairs.size() - before;
                if (found.fetch_add(more, std::memory_order_relaxed) + more > max_pairs) return;
            }
            const std::lock_guard lock(guard);
            out.insert(out.end(), pairs.begin(), pairs.end());
        };
        if (!parallel_for((c.g + places - 1) / places, threads, look, poll)) return false;
        too_many = found.load() > max_pairs;
    }
    std::sort(out.begin(), out.end(),
              [](const Pair& x, const Pair& y) { return x.row != y.row ? x.row < y.row : x.col < y.col; });
    return true;
}

bool greedy(const Candidates& c, const std::int64_t* order, std::int64_t* keeper, float* similarity,
            std::size_t threads, const Poll& poll) {
    constexpr std::uint32_t none = ~std::uint32_t{0};
    // Of each place and band its bucket, and of each bucket the kept ones as a list through `next`.
    std::vector<std::uint32_t> buckets(c.g * c.bands.bands, none), next(c.g * c.bands.bands, none), heads;
    std::vector<uid::Uid> sorted;
    for (std::size_t band = 0; band < c.bands.bands; ++band) {
        if (!bucket_band(c, band, sorted, threads, poll)) return false;
        for (std::size_t p = 1; p < c.g; ++p) {
            if (sorted[p].high != sorted[p - 1].high) continue;
            std::uint32_t& first = buckets[sorted[p - 1].low * c.bands.bands + band];
            if (first == none) {
                first = static_cast<std::uint32_t>(heads.size());
                heads.push_back(none);
            }
            buckets[sorted[p].low * c.bands.bands + band] = first;
        }
    }
    std::vector<std::uint32_t> ranks(c.g);
    for (std::size_t r = 0; r < c.g; ++r)
        ranks[static_cast<std::size_t>(order[r])] = static_cast<std::uint32_t>(r);
    std::size_t looked = 0;
    for (std::size_t r = 0; r < c.g; ++r) {
        const auto place = static_cast<std::size_t>(order[r]);
        const std::uint32_t* own = buckets.data() + place * c.bands.bands;
        std::uint32_t best = none;
        float most = std::numeric_limits<float>::quiet_NaN();
        for (std::size_t band = 0; band < c.bands.bands; ++band) {
            if (own[band] == none) continue;
            for (std::uint32_t other = heads[own[band]]; other != none;
                 other = next[other * c.bands.bands + band]) {
                if (++looked % poll_every == 0 && poll && poll()) return false;
                if (met_before(c, band, place, other)) continue;
                const float found = verified(c, place, other);
                if (!(found >= c.threshold)) continue;
                if (best == none || found > most || (found == most && ranks[other] < ranks[best]))
                    best = other, most = found;
            }
        }
        keeper[place] = best == none ? -1 : static_cast<std::int64_t>(best);
        similarity[place] = most;
        if (best != none) continue;
        for (std::size_t band = 0; band < c.bands.bands; ++band) {
            if (own[band] == none) continue;
            next[place * c.bands.bands + band] = heads[own[band]];
            heads[own[band]] = static_cast<std::uint32_t>(place);
        }
    }
    return true;
}

bool components_above(const Candidates& c, std::int64_t* labels, std::size_t threads, const Poll& poll) {
    std::vector<uid::Uid> sorted;
    Groups groups(c.g);
    BucketLinks links(c, groups, poll);
    for (std::size_t band = 0; band < c.bands.bands; ++band) {
        if (!bucket_band(c, band, sorted, threads, poll)) return false;
        for (std::size_t begin = 0, end; begin < c.g; begin = end) {
            end = begin + 1;
            while (end < c.g && sorted[end].high == sorted[begin].high) ++end;
            if (end - begin > 1 && !links.link(sorted.data() + begin, sorted.data() + end)) return false;
        }
    }
    std::iota(labels, labels + c.sets.n, std::int64_t{0});
    for (std::size_t i = 0; i < c.g; ++i)
        labels[c.rows[i]] = c.rows[groups.root(static_cast<std::uint32_t>(i))];
    return true;
}

}  // namespace pycurate::ngram
