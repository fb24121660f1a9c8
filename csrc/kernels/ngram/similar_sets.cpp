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
constexpr std::ptrdiff_t ahead = 8;                       // members between fetching a set and comparing it
constexpr std::size_t poll_every = std::size_t{1} << 20;  // comparisons between two looks at the signals

/// Candidates by their places 0 to g - 1, and in every band the buckets of those that share its key.
class Buckets {
  public:
    static constexpr std::uint32_t none = ~std::uint32_t{0};

    explicit Buckets(const Candidates& candidates) : c(candidates), sets_(c.g) {
        for (std::size_t i = 0; i < c.g; ++i) {
            const auto row = static_cast<std::size_t>(c.rows[i]);
            sets_[i] = {c.sets.at(row), c.sets.size(row)};
        }
    }

    /// False when `poll` stopped it.
    bool fill(std::size_t threads, const Poll& poll) {
        const std::size_t width = c.bands.bands * c.bands.rows;
        bucket_.assign(c.g * c.bands.bands, none);
        begins_.assign(1, 0);
        std::vector<uid::Uid> sorted(c.g);
        for (std::size_t band = 0; band < c.bands.bands; ++band) {
            first_of_band_.push_back(count());
            const auto key = [&](std::size_t chunk) {
                for (std::size_t i = chunk * chunk_rows; i < std::min(c.g, (chunk + 1) * chunk_rows); ++i)
                    sorted[i] = {band_key(c.signatures + i * width, band, c.bands.rows), i};
            };
            if (!parallel_for((c.g + chunk_rows - 1) / chunk_rows, threads, key, poll) ||
                !uid::sort(sorted.data(), c.g, threads, poll))
                return false;
            for (std::size_t begin = 0, end; begin < c.g; begin = end) {
                end = begin + 1;
                while (end < c.g && sorted[end].high == sorted[begin].high) ++end;
                if (end - begin == 1) continue;
                const auto number = static_cast<std::uint32_t>(begins_.size() - 1);
                for (std::size_t p = begin; p < end; ++p) {
                    bucket_[sorted[p].low * c.bands.bands + band] = number;
                    members_.push_back(static_cast<std::uint32_t>(sorted[p].low));
                }
                begins_.push_back(members_.size());
            }
        }
        first_of_band_.push_back(count());
        return true;
    }
    std::size_t count() const noexcept { return begins_.size() - 1; }
    /// The bucket of a place in each band, or `none` where it is alone.
    const std::uint32_t* of(std::size_t place) const noexcept {
        return bucket_.data() + place * c.bands.bands;
    }
    /// The places of a bucket, rising.
    std::uint32_t* begin(std::uint32_t bucket) noexcept { return members_.data() + begins_[bucket]; }
    const std::uint32_t* begin(std::uint32_t bucket) const noexcept {
        return members_.data() + begins_[bucket];
    }
    const std::uint32_t* end(std::uint32_t bucket) const noexcept {
        return members_.data() + begins_[bucket + 1];
    }

    /// Similarity of two candidates; 0 where their sizes alone keep it below the threshold.
    float similarity(std::size_t i, std::size_t j) const noexcept {
        const Set x = sets_[i], y = sets_[j];
        const auto most = static_cast<float>(static_cast<double>(std::min(x.size, y.size)) /
                                             static_cast<double>(std::max(x.size, y.size)));
        return most >= c.threshold ? jaccard(x.at, x.size, y.at, y.size) : 0.0f;
    }
    /// Fetch the beginning of a set that will soon be compared: sets lie far apart in memory.
    void expect(std::size_t i) const noexcept {
        __builtin_prefetch(sets_[i].at);
        __builtin_prefetch(sets_[i].at + 8);
    }
    /// True when two places share a band before `band`.
    bool met_before(std::size_t band, std::size_t i, std::size_t j) const noexcept {
        const std::uint32_t *x = of(i), *y = of(j);
        for (std::size_t earlier = 0; earlier < band; ++earlier)
            if (x[earlier] == y[earlier] && x[earlier] != none) return true;
        return false;
    }
    /// Members of all buckets, one behind the other; where those of a bucket begin.
    const std::uint32_t& member(std::size_t p) const noexcept { return members_[p]; }
    std::size_t place(std::size_t bucket) const noexcept { return begins_[bucket]; }
    /// Buckets of bands before `band`; their numbers rise with the band.
    std::size_t before(std::size_t band) const noexcept { return first_of_band_[band]; }

    const Candidates& c;

  private:
    struct Set {
        const std::uint64_t* at;
        std::size_t size;
    };
    std::vector<Set> sets_;
    std::vector<std::uint32_t> bucket_, members_;
    std::vector<std::size_t> begins_, first_of_band_;
};

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
    BucketLinks(const Buckets& buckets, Groups& groups, const Poll& poll)
        : buckets_(buckets), groups_(groups), poll_(poll) {}

    bool link(std::uint32_t bucket) {
        parts_.clear();
        for (const std::uint32_t* place = buckets_.begin(bucket); place != buckets_.end(bucket); ++place)
            if (!add(*place)) return false;
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
            if (buckets_.similarity(place, other) >= buckets_.c.threshold) {
                groups_.unite(place, other);
                return true;
            }
        }
        return false;
    }

    const Buckets& buckets_;
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
    Buckets buckets(c);
    if (!buckets.fill(threads, poll)) return false;
    std::atomic<std::size_t> found{0};
    std::mutex guard;
    for (std::size_t band = 0; band < c.bands.bands && found.load() <= max_pairs; ++band) {
        const std::size_t first = buckets.before(band), last = buckets.before(band + 1);
        const std::size_t begin = buckets.place(first), end = buckets.place(last);
        constexpr std::size_t places = 256;  // of a task, so that a large bucket is shared among threads
        const auto look = [&](std::size_t task) {
            std::vector<Pair> pairs;
            const std::size_t from = begin + task * places, to = std::min(end, from + places);
            for (std::size_t p = from; p < to; ++p) {
                const std::uint32_t i = buckets.member(p);
                const std::uint32_t* bucket_end = buckets.end(buckets.of(i)[band]);
                const std::size_t before = pairs.size();
                for (const std::uint32_t* q = &buckets.member(p) + 1; q != bucket_end; ++q) {
                    if (bucket_end - q > ahead) buckets.expect(q[ahead]);
                    if (buckets.met_before(band, i, *q)) continue;
                    const float similarity = buckets.similarity(i, *q);
                    if (similarity >= c.threshold) pairs.push_back({c.rows[i], c.rows[*q], similarity});
                }
                const std::size_t more = pairs.size() - before;
                if (found.fetch_add(more, std::memory_order_relaxed) + more > max_pairs) return;
            }
            const std::lock_guard lock(guard);
            out.insert(out.end(), pairs.begin(), pairs.end());
        };
        if (!parallel_for((end - begin + places - 1) / places, threads, look, poll)) return false;
    }
    too_many = found.load() > max_pairs;
    std::sort(out.begin(), out.end(),
              [](const Pair& x, const Pair& y) { return x.row != y.row ? x.row < y.row : x.col < y.col; });
    return true;
}

bool greedy(const Candidates& c, const std::int64_t* order, std::int64_t* keeper, float* similarity,
            std::size_t threads, const Poll& poll) {
    Buckets buckets(c);
    if (!buckets.fill(threads, poll)) return false;
    std::vector<std::uint32_t> kept(buckets.count());  // of each bucket: how many are at its front
    std::vector<std::uint32_t> ranks(c.g), compared(c.g, Buckets::none);
    for (std::size_t r = 0; r < c.g; ++r)
        ranks[static_cast<std::size_t>(order[r])] = static_cast<std::uint32_t>(r);
    std::size_t looked = 0;
    for (std::size_t r = 0; r < c.g; ++r) {
        const auto place = static_cast<std::uint32_t>(order[r]);
        std::uint32_t best = Buckets::none;
        float most = std::numeric_limits<float>::quiet_NaN();
        for (std::size_t band = 0; band < c.bands.bands; ++band) {
            const std::uint32_t bucket = buckets.of(place)[band];
            if (bucket == Buckets::none) continue;
            const std::uint32_t* others = buckets.begin(bucket);
            for (std::uint32_t k = 0; k < kept[bucket]; ++k) {
                const std::uint32_t other = others[k];
                if (k + ahead < kept[bucket]) buckets.expect(others[k + ahead]);
                if (++looked % poll_every == 0 && poll && poll()) return false;
                if (compared[other] == place) continue;
                compared[other] = place;
                const float found = buckets.similarity(place, other);
                if (!(found >= c.threshold)) continue;
                if (best == Buckets::none || found > most || (found == most && ranks[other] < ranks[best]))
                    best = other, most = found;
            }
        }
        keeper[place] = best == Buckets::none ? -1 : static_cast<std::int64_t>(best);
        similarity[place] = most;
        if (best != Buckets::none) continue;
        for (std::size_t band = 0; band < c.bands.bands; ++band)
            if (const std::uint32_t bucket = buckets.of(place)[band]; bucket != Buckets::none)
                buckets.begin(bucket)[kept[bucket]++] =
                    place;  // the members themselves are not asked for here
    }
    return true;
}

bool components_above(const Candidates& c, std::int64_t* labels, std::size_t threads, const Poll& poll) {
    Buckets buckets(c);
    if (!buckets.fill(threads, poll)) return false;
    Groups groups(c.g);
    BucketLinks links(buckets, groups, poll);
    for (std::uint32_t bucket = 0; bucket < buckets.count(); ++bucket)
        if (!links.link(bucket)) return false;
    std::iota(labels, labels + c.sets.n, std::int64_t{0});
    for (std::size_t i = 0; i < c.g; ++i)
        labels[c.rows[i]] = c.rows[groups.root(static_cast<std::uint32_t>(i))];
    return true;
}

}  // namespace pycurate::ngram
