// Votes of neighbours. A row's k labels go into a table of its own, so that nothing grows with rows *
// classes.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "common/thread_pool.h"
#include "kernels/votes/votes.h"

namespace pycurate::votes {
namespace {

constexpr std::size_t task_rows = 1024;

/// Weights by label of at most `most` labels: open addressing, at least half of it empty.
class Table {
  public:
    explicit Table(std::size_t most)
        : keys_(std::bit_ceil(2 * std::max<std::size_t>(most, 1)), -1), sums_(keys_.size()) {
        used_.reserve(most);
    }

    void add(std::int32_t label, double weight) {
        const std::size_t at = place(label);
        if (keys_[at] < 0) {
            keys_[at] = label;
            sums_[at] = 0;
            used_.push_back(at);
        }
        sums_[at] += weight;
    }
    double weight(std::int32_t label) const noexcept {
        const std::size_t at = place(label);
        return keys_[at] < 0 ? 0.0 : sums_[at];
    }
    void clear() noexcept {
        for (const std::size_t at : used_) keys_[at] = -1;
        used_.clear();
    }
    std::size_t labels() const noexcept { return used_.size(); }

    /// The first `count` labels by falling weight, ties to the lower one, are moved to the front.
    void sort_first(std::size_t count) {
        const auto before = [&](std::size_t x, std::size_t y) {
            return sums_[x] != sums_[y] ? sums_[x] > sums_[y] : keys_[x] < keys_[y];
        };
        std::partial_sort(used_.begin(), used_.begin() + static_cast<std::ptrdiff_t>(count), used_.end(),
                          before);
    }
    std::int32_t label_at(std::size_t rank) const noexcept { return keys_[used_[rank]]; }
    double weight_at(std::size_t rank) const noexcept { return sums_[used_[rank]]; }

  private:
    std::size_t place(std::int32_t label) const noexcept {
        std::size_t at = (static_cast<std::uint32_t>(label) * 2654435769u) & (keys_.size() - 1);
        while (keys_[at] >= 0 && keys_[at] != label) at = (at + 1) & (keys_.size() - 1);
        return at;
    }

    std::vector<std::int32_t> keys_;
    std::vector<double> sums_;
    std::vector<std::size_t> used_;
};

/// Calls take(neighbor, label, weight) for the voters of a node, nearest first, until it returns false.
template <class Take>
void each_voter(const Lists& lists, const Voters& voters, std::size_t node, const Take& take) {
    const auto self = static_cast<std::int64_t>(lists.first + node);
    for (std::size_t e = node * lists.width; e < (node + 1) * lists.width; ++e) {
        const std::int64_t neighbor = lists.indices[e];
        if (neighbor < 0 || neighbor == self) continue;
        const std::int32_t label = voters.labels[neighbor];
        const float weight = lists.weights != nullptr ? lists.weights[e] : 1.0f;
        if (label < 0 || !(weight > 0)) continue;
        if (!take(static_cast<std::size_t>(neighbor), label, static_cast<double>(weight))) return;
    }
}

template <class Judge>
bool for_rows(std::size_t n, std::size_t threads, const Poll& poll, const Judge& judge_rows) {
    return parallel_for((n + task_rows - 1) / task_rows, threads,
                        [&](std::size_t t) { judge_rows(t * task_rows, std::min(n, (t + 1) * task_rows)); },
                        poll);
}

}  // namespace

bool cast_votes(const Lists& lists, const Voters& voters, const Asked& asked, const Votes& out,
                std::size_t threads, const Poll& poll) {
    return for_rows(asked.n, threads, poll, [&](std::size_t begin, std::size_t end) {
        Table table(lists.width);
        for (std::size_t i = begin; i < end; ++i) {
            double total = 0;
            std::int32_t count = 0;
            each_voter(lists, voters, static_cast<std::size_t>(asked.nodes[i]),
                       [&](std::size_t, std::int32_t label, double weight) {
                           table.add(label, weight);
                           total += weight;
                           ++count;
                           return true;
                       });
            const std::size_t top = std::min(out.top, table.labels());
            table.sort_first(top);
            for (std::size_t r = 0; r < out.top; ++r) {
                out.labels[i * out.top + r] = r < top ? table.label_at(r) : -1;
                out.shares[i * out.top + r] = r < top ? static_cast<float>(table.weight_at(r) / total) : 0.0f;
            }
            out.own[i] = count == 0 || asked.own[i] < 0
                             ? std::numeric_limits<float>::quiet_NaN()
                             : static_cast<float>(table.weight(asked.own[i]) / total);
            out.totals[i] = static_cast<float>(total);
            out.voters[i] = count;
            table.clear();
        }
    });
}

bool round_votes(const Lists& lists, const Voters& voters, const Asked& asked, const Rounds& rounds,
                 std::uint8_t* flagged, std::uint8_t* judged, float* scores, std::size_t threads,
                 const Poll& poll) {
    struct Vote {
        std::uint64_t member;
        double weight;
        std::int32_t label;
    };
    const std::size_t count = rounds.last - rounds.first;
    return for_rows(asked.n, threads, poll, [&](std::size_t begin, std::size_t end) {
        Table table(std::min(rounds.neighbors, lists.width) + 1);
        std::vector<Vote> votes;
        votes.reserve(lists.width);
        for (std::size_t i = begin; i < end; ++i) {
            if (scores != nullptr)
                std::fill_n(scores + i * count, count, std::numeric_limits<float>::quiet_NaN());
            const auto node = static_cast<std::size_t>(asked.nodes[i]);
            const std::int32_t own = asked.own[i];
            if (own < 0) continue;
            votes.clear();
            each_voter(lists, voters, node, [&](std::size_t neighbor, std::int32_t label, double weight) {
                votes.push_back({rounds.members[neighbor], weight, label});
                return true;
            });
            const std::uint64_t mine = rounds.members[lists.first + node];
            for (std::size_t r = rounds.first; r < rounds.last; ++r) {
                if ((mine >> r & 1u) == 0) continue;
                double nearest[2] = {0, 0};
                std::size_t taken = 0;
                for (const Vote& vote : votes) {
                    if ((vote.member >> r & 1u) == 0) continue;
                    if (taken == rounds.neighbors) break;
                    if (taken < 2) nearest[taken] = vote.weight;
                    table.add(vote.label, vote.weight);
                    ++taken;
                }
                if (taken == 0) continue;
                if (rounds.own_vote) table.add(own, taken > 1 ? 2 * nearest[0] - nearest[1] : nearest[0]);
                table.sort_first(1);
                ++judged[i];
                flagged[i] = static_cast<std::uint8_t>(flagged[i] + (table.label_at(0) != own ? 1 : 0));
                if (scores != nullptr) {
                    // Squares in the order of weight, so that equal sets of votes give equal sums.
                    table.sort_first(table.labels());
                    double squares = 0;
                    for (std::size_t k = 0; k < table.labels(); ++k)
                        squares += table.weight_at(k) * table.weight_at(k);
                    scores[i * count + r - rounds.first] =
                        static_cast<float>(table.weight(own) / std::sqrt(squares));
                }
                table.clear();
            }
        }
    });
}

}  // namespace pycurate::votes
