#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "common/float_environment.h"
#include "common/thread_pool.h"
#include "kernels/selection/selection.h"

namespace pycurate::selection {
namespace {

/// Candidates that one task asks for their gain: so many that what a task costs to start is nothing.
constexpr std::size_t task_candidates = 256;
constexpr auto poll_interval = std::chrono::milliseconds(100);

double gain_of(const SparseCandidates& all, std::size_t candidate, const Rows& rows) noexcept {
    double sum = 0;
    for (std::uint64_t e = all.starts[candidate]; e < all.ends[candidate]; ++e) {
        const std::uint32_t row = all.rows[e];
        const float before = rows.covered[row], similarity = all.similarities[e];
        if (similarity <= before) continue;
        const double gained = static_cast<double>(similarity) - static_cast<double>(before);
        sum += rows.weights != nullptr ? rows.weights[row] * gained : gained;
    }
    return sum;
}

void cover_by(const SparseCandidates& all, std::size_t candidate, std::uint32_t name,
              const Rows& rows) noexcept {
    for (std::uint64_t e = all.starts[candidate]; e < all.ends[candidate]; ++e) {
        const std::uint32_t row = all.rows[e];
        if (all.similarities[e] <= rows.covered[row]) continue;
        rows.covered[row] = all.similarities[e];
        rows.representative[row] = name;
    }
}

/// Gains of sparse candidates, anew.
class SparseGains {
  public:
    SparseGains(const SparseCandidates& all, const Rows& rows) noexcept : all_(all), rows_(rows) {}
    double operator()(std::size_t candidate) noexcept { return gain_of(all_, candidate, rows_); }

  private:
    const SparseCandidates& all_;
    const Rows& rows_;
};

/// Gains of dense candidates, anew. Rows that a candidate is not more similar to than what covers them never
/// gain by it again, so that once few are left, only these are looked at: adding their terms alone gives the
/// same bits.
class DenseGains {
  public:
    DenseGains(const DenseCandidates& all, const Rows& rows)
        : all_(all), rows_(rows), left_(all.count), numbers_(rows.n / few), found_(rows.n / few) {}

    double operator()(std::size_t candidate) {
        if (left_[candidate].collected) return of_left(left_[candidate].entries);
        const float* similarities = all_.data + candidate * rows_.n;
        std::size_t better;
        const double gain = kernels_.gain(similarities, rows_.covered, rows_.weights, rows_.n, &better);
        if (better <= rows_.n / few) {
            kernels_.collect(similarities, rows_.covered, rows_.n, numbers_.data(), found_.data());
            auto& [entries, collected] = left_[candidate];
            collected = true;
            entries.reserve(better);
            for (std::size_t e = 0; e < better; ++e) entries.push_back({numbers_[e], found_[e]});
        }
        return gain;
    }

  private:
    static constexpr std::size_t few = 8;  // an eighth of the rows take a quarter of the memory of all
    static constexpr std::size_t lanes = 16;
    struct Entry {
        std::uint32_t row;
        float similarity;
    };
    struct Left {
        std::vector<Entry> entries;
        bool collected = false;
    };

    double of_left(std::vector<Entry>& entries) const noexcept {
        double sums[lanes] = {};
        std::size_t kept = 0;
        for (const Entry entry : entries) {
            const float before = rows_.covered[entry.row];
            if (entry.similarity <= before) continue;
            const double gained = static_cast<double>(entry.similarity) - static_cast<double>(before);
            sums[entry.row % lanes] += rows_.weights != nullptr ? rows_.weights[entry.row] * gained : gained;
            entries[kept++] = entry;
        }
        entries.resize(kept);
        for (std::size_t half = lanes / 2; half > 0; half /= 2)
            for (std::size_t l = 0; l < half; ++l) sums[l] += sums[l + half];
        return sums[0];
    }

    const DenseCandidates& all_;
    const Rows& rows_;
    const Kernels& kernels_ = active_kernels();
    std::vector<Left> left_;
    std::vector<std::uint32_t> numbers_;
    std::vector<float> found_;
};

void cover_by(const DenseCandidates& all, std::size_t candidate, std::uint32_t name,
              const Rows& rows) noexcept {
    active_kernels().cover(all.data + candidate * rows.n, name, rows.covered, rows.representative, rows.n);
}

/// Calls ask(candidate) for all that are allowed, on several threads; -1 for the others.
template <class Ask>
bool for_all(std::size_t count, const std::uint8_t* allowed, double* gains, std::size_t threads,
             const std::function<bool()>& poll, const Ask& ask) {
    const std::size_t tasks = (count + task_candidates - 1) / task_candidates;
    return parallel_for(
        tasks, threads,
        [&](std::size_t task) {
            const DefaultFloatEnvironment environment;
            const std::size_t last = std::min(count, (task + 1) * task_candidates);
            for (std::size_t c = task * task_candidates; c < last; ++c)
                gains[c] = allowed == nullptr || allowed[c] != 0 ? ask(c) : -1.0;
        },
        poll);
}

struct Bound {
    double gain;
    std::uint32_t candidate;
    std::uint32_t round;  // of picks in which the gain was computed
};

/// Less eager to be picked: for a heap whose top is the largest gain, of equal ones the lowest candidate.
bool less(const Bound& a, const Bound& b) noexcept {
    return a.gain < b.gain || (a.gain == b.gain && a.candidate > b.candidate);
}

/// The top of the heap got smaller: let it sink, which takes half of what removing and adding it does.
void sink_top(std::vector<Bound>& heap) noexcept {
    const Bound moved = heap[0];
    std::size_t hole = 0;
    for (;;) {
        std::size_t child = 2 * hole + 1;
        if (child >= heap.size()) break;
        if (child + 1 < heap.size() && less(heap[child], heap[child + 1])) ++child;
        if (!less(moved, heap[child])) break;
        heap[hole] = heap[child];
        hole = child;
    }
    heap[hole] = moved;
}

template <class Gains, class Candidates>
std::size_t greedy(const Candidates& all, const Rows& rows, double* gains, const std::uint32_t* names,
                   std::size_t k, Picks& picks, bool& stopped, const Poll& poll) {
    const DefaultFloatEnvironment environment;
    Gains gain_now(all, rows);
    std::vector<Bound> heap;
    for (std::size_t c = 0; c < all.count; ++c)
        if (gains[c] >= 0) heap.push_back({gains[c], static_cast<std::uint32_t>(c), 0});
    std::make_heap(heap.begin(), heap.end(), less);
    auto last_poll = std::chrono::steady_clock::now() - poll_interval;
    std::uint32_t made = 0;
    while (made < k && !heap.empty()) {
        Bound& top = heap[0];
        if (top.round < made) {
            top.gain = gains[top.candidate] = gain_now(top.candidate);
            top.round = made;
            sink_top(heap);
            if (++picks.evaluations % 64 != 0 || !poll) continue;
            const auto now = std::chrono::steady_clock::now();
            if (now - last_poll < poll_interval) continue;
            last_poll = now;
            stopped = poll(static_cast<double>(made) / static_cast<double>(k));
            if (stopped) break;
            continue;
        }
        picks.candidates[made] = top.candidate;
        picks.gains[made] = top.gain;
        gains[top.candidate] = -1;
        cover_by(all, top.candidate, names != nullptr ? names[top.candidate] : top.candidate, rows);
        ++made;
        heap[0] = heap.back();
        heap.pop_back();
        if (!heap.empty()) sink_top(heap);
    }
    return made;
}

template <class Candidates>
void cover_all(const Candidates& all, const std::uint32_t* chosen, std::size_t count,
               const std::uint32_t* names, const Rows& rows) noexcept {
    for (std::size_t i = 0; i < count; ++i)
        cover_by(all, chosen[i], names != nullptr ? names[chosen[i]] : chosen[i], rows);
}

}  // namespace

bool gains_of(const SparseCandidates& all, const Rows& rows, const std::uint8_t* allowed, double* gains,
              std::size_t threads, const std::function<bool()>& poll) {
    return for_all(all.count, allowed, gains, threads, poll,
                   [&](std::size_t c) { return gain_of(all, c, rows); });
}

bool gains_of(const DenseCandidates& all, const Rows& rows, const std::uint8_t* allowed, bool negative,
              double* gains, std::uint32_t& invalid, std::size_t threads, const std::function<bool()>& poll) {
    const Kernels& kernels = active_kernels();
    std::atomic<std::uint32_t> first{none};
    const bool finished = for_all(all.count, allowed, gains, threads, poll, [&](std::size_t c) {
        const float* similarities = all.data + c * rows.n;
        std::size_t better;
        const double gain = kernels.gain(similarities, rows.covered, rows.weights, rows.n, &better);
        if (!kernels.valid(similarities, rows.n, negative)) {  // from cache, as gain has just read it
            std::uint32_t seen = first.load();
            while (c < seen && !first.compare_exchange_weak(seen, static_cast<std::uint32_t>(c))) {
            }
        }
        return gain;
    });
    invalid = first.load();
    return finished;
}

std::size_t pick_greedily(const SparseCandidates& all, const Rows& rows, double* gains,
                          const std::uint32_t* names, std::size_t k, Picks& picks, bool& stopped,
                          const Poll& poll) {
    return greedy<SparseGains>(all, rows, gains, names, k, picks, stopped, poll);
}

std::size_t pick_greedily(const DenseCandidates& all, const Rows& rows, double* gains,
                          const std::uint32_t* names, std::size_t k, Picks& picks, bool& stopped,
                          const Poll& poll) {
    return greedy<DenseGains>(all, rows, gains, names, k, picks, stopped, poll);
}

void cover(const SparseCandidates& all, const std::uint32_t* chosen, std::size_t count,
           const std::uint32_t* names, const Rows& rows) noexcept {
    cover_all(all, chosen, count, names, rows);
}

void cover(const DenseCandidates& all, const std::uint32_t* chosen, std::size_t count,
           const std::uint32_t* names, const Rows& rows) noexcept {
    cover_all(all, chosen, count, names, rows);
}

void count_better(const SparseCandidates& all, const std::uint32_t* chosen, std::size_t count,
                  const float* covered, std::int32_t* counts) noexcept {
    for (std::size_t i = 0; i < count; ++i)
        for (std::uint64_t e = all.starts[chosen[i]]; e < all.ends[chosen[i]]; ++e)
            counts[all.rows[e]] += all.similarities[e] > covered[all.rows[e]];
}

double objective(const Rows& rows) noexcept {
    const DefaultFloatEnvironment environment;
    double sum = 0;
    for (std::size_t i = 0; i < rows.n; ++i) {
        const auto covered = static_cast<double>(rows.covered[i]);
        sum += rows.weights != nullptr ? rows.weights[i] * covered : covered;
    }
    return sum;
}

}  // namespace pycurate::selection
