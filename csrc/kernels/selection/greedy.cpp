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

double gain_of(const DenseCandidates& all, std::size_t candidate, const Rows& rows) noexcept {
    return active_kernels().gain(all.data + candidate * rows.n, rows.covered, rows.weights, rows.n);
}

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

template <class Candidates>
std::size_t greedy(const Candidates& all, const Rows& rows, double* gains, const std::uint32_t* names,
                   std::size_t k, Picks& picks, bool& stopped, const Poll& poll) {
    const DefaultFloatEnvironment environment;
    std::vector<Bound> heap;
    for (std::size_t c = 0; c < all.count; ++c)
        if (gains[c] >= 0) heap.push_back({gains[c], static_cast<std::uint32_t>(c), 0});
    std::make_heap(heap.begin(), heap.end(), less);
    auto last_poll = std::chrono::steady_clock::now();
    std::uint32_t made = 0;
    while (made < k && !heap.empty()) {
        Bound& top = heap[0];
        if (top.round < made) {
            top.gain = gains[top.candidate] = gain_of(all, top.candidate, rows);
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
        const double gain = kernels.gain(similarities, rows.covered, rows.weights, rows.n);
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
    return greedy(all, rows, gains, names, k, picks, stopped, poll);
}

std::size_t pick_greedily(const DenseCandidates& all, const Rows& rows, double* gains,
                          const std::uint32_t* names, std::size_t k, Picks& picks, bool& stopped,
                          const Poll& poll) {
    return greedy(all, rows, gains, names, k, picks, stopped, poll);
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
