#pragma once
// The loop over tiles, written once for every question. An Epilogue is what a question does with a tile's
// pairs:
//
//   struct Slot                        what a thread collects, default-constructed
//   static constexpr bool moving       limits rise while the join runs
//   static constexpr bool both         a pair matters to its column as well as to its row
//   row_limit(i), col_limit(j)         scores below it do not matter, to position i of a or j of b
//   settled(panel_a, panel_b)          true: no pair of these panels can matter any more
//   wants(slot, i, j, upper, lower)    an upper bound of a score, and a function that gives a lower one;
//                                      false: nothing to do, or done without the score
//   nearest_only()                     where limits move for rows alone: a row asks for one
//   postpone(slot, i, j, upper)        where limits move, in place of `wants`: the bound reaches a limit, the
//                                      estimate in its middle does not; if it does, the pair is scored
//   take(slot, i, j, score)            a canonical score that reaches one of its two limits
//   done(slot)                         true: end the join
//
// Pairs come once each, in any order and from several threads.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>
#include <mutex>

#include "common/float_environment.h"
#include "common/thread_pool.h"
#include "kernels/fused_similarity/fused_similarity.h"
#include "kernels/fused_similarity/shares.h"
#include "kernels/rowwise/similarity.h"

namespace pycurate::fused_similarity {

// Panels of a block: 384 rows. At 512 coordinates the group copies and the panels of two blocks are 400 KB of
// a 1 MB second-level cache; a panel, read by 48 groups in turn, stays in the first.
constexpr std::size_t block_panels = 8;
constexpr std::size_t block_groups = block_panels * panel_groups;
// Blocks of b that a task joins with one of a: the copies of a's groups pay for eight.
constexpr std::size_t task_blocks = 8;
// Survivors of a tile's 384 pairs from which the whole tile is scored at once: widening and scoring it took
// as long as about 80 single pairs at 512 coordinates (Cascade Lake).
constexpr int dense_survivors = 80;

// Tiles by which stages are chosen: 1 ms at 512 coordinates.
constexpr std::size_t sampled_tiles = 400;
// What a stage's call costs besides its steps, in steps.
constexpr std::size_t call_steps = 6;
// Pairs that wait to be scored together: scoring asks for the rows of the next four while it reads four, and
// a tile alone seldom has as many (2.6 for the 32 nearest of 50,000 rows). Limits age by that much.
constexpr std::size_t waiting_pairs = 128;

template <class Epilogue>
class Join {
  public:
    Join(const Operand& a, const Operand* b, Epilogue& epilogue)
        : a_(a),
          b_(b != nullptr ? *b : a),
          self_(b == nullptr),
          epilogue_(epilogue),
          plan_(a.stages.empty() ? 0 : 1u << (a.stages.size() - 1)) {}

    /// False: stopped by `poll`. Slots of all threads are handed to `collect` afterwards, in no order.
    template <class Collect>
    bool run(std::size_t threads, const Poll& poll, Work& work, const Collect& collect) {
        const std::size_t blocks_a = blocks(a_), blocks_b = blocks(b_);
        struct Task {
            std::uint32_t a, b;
        };
        std::vector<Task> tasks;
        for (std::size_t i = 0; i < blocks_a; ++i)
            for (std::size_t j = self_ ? i / task_blocks * task_blocks : 0; j < blocks_b; j += task_blocks)
                tasks.push_back({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(j)});
        // Rows in order of their clusters have most of their nearest ones beside them: limits rise at once.
        const auto others = std::stable_partition(tasks.begin(), tasks.end(), [&](const Task& task) {
            return Epilogue::moving && self_ && task.b / task_blocks == task.a / task_blocks;
        });
        const auto beside = static_cast<std::size_t>(others - tasks.begin());
        std::atomic<std::size_t> finished{0};
        const auto task = [&](std::size_t t) {
            if (ended_.load(std::memory_order_relaxed)) return;
            const DefaultFloatEnvironment environment;
            Worker* worker = borrow();
            if (chooses_at(t, beside, tasks.size())) choose_stages(*worker);
            join_blocks(*worker, tasks[t].a, tasks[t].b,
                        std::min<std::size_t>(tasks[t].b + task_blocks, blocks_b));
            give_back(worker);
            finished.fetch_add(1, std::memory_order_relaxed);
        };
        const auto stop = [&] {
            return poll && poll(static_cast<double>(finished.load(std::memory_order_relaxed)) /
                                static_cast<double>(std::max<std::size_t>(tasks.size(), 1)));
        };
        const bool complete = parallel_for(tasks.size(), threads, task, stop);
        work.screened.assign(a_.stages.size(), 0);
        for (auto& worker : workers_) {
            work.tiles += worker->work.tiles;
            work.skipped += worker->work.skipped;
            work.scored_tiles += worker->work.scored_tiles;
            work.scored_pairs += worker->work.scored_pairs;
            for (std::size_t s = 0; s < work.screened.size(); ++s) {
                work.screened[s] += worker->work.screened[s];
                work.operations += worker->work.screened[s] * a_.stages[s].steps * step_coordinates *
                                   group_rows * panel_rows * 2;
            }
            collect(worker->slot);
        }
        return complete;
    }

  private:
    static constexpr float low = -std::numeric_limits<float>::infinity();

    /// Scratch of a thread, and its slot.
    struct Worker {
        typename Epilogue::Slot slot{};
        Work work;
        std::vector<AlignedBuffer<std::uint8_t>> groups;  // per stage, of a's block
        std::vector<std::uint8_t> copied;                 // per stage and group
        std::vector<std::int32_t> limits;                 // per stage and row of a's block
        AlignedBuffer<float> wide_group, wide_panel;
        std::size_t wide_panel_at = SIZE_MAX;
        AlignedBuffer<std::int32_t> sums{group_rows * panel_rows};
        AlignedBuffer<float> upper{group_rows * panel_rows}, dots{group_rows * panel_rows};
        std::uint64_t masks[group_rows], near[group_rows];
        float row_limits[group_rows], col_limits[panel_rows], least_col_limit = low;
        std::size_t limits_at = SIZE_MAX;
        std::size_t waiting = 0;  // positions of pairs to score
        std::uint32_t waiting_rows[waiting_pairs + group_rows * panel_rows],
            waiting_cols[waiting_pairs + group_rows * panel_rows];
    };

    static std::size_t blocks(const Operand& o) noexcept {
        return (o.panels() + block_panels - 1) / block_panels;
    }

    Worker* borrow() {
        const std::lock_guard lock(mutex_);
        if (idle_.empty()) {
            Worker& worker = *workers_.emplace_back(std::make_unique<Worker>());
            worker.work.screened.assign(a_.stages.size(), 0);
            for (std::size_t s = 0; s < a_.stages.size(); ++s)
                worker.groups.emplace_back(
                    a_.stages[s].source == s ? block_groups * a_.stages[s].steps * group_step_bytes : 0);
            worker.copied.resize(a_.stages.size() * block_groups);
            worker.limits.resize(a_.stages.size() * block_groups * group_rows);
            const std::size_t width = (a_.d + lanes - 1) / lanes * lanes;
            worker.wide_group = AlignedBuffer<float>(std::max<std::size_t>(group_rows * width, 1));
            worker.wide_panel = AlignedBuffer<float>(std::max<std::size_t>(panel_rows * width, 1));
            return &worker;
        }
        Worker* worker = idle_.back();
        idle_.pop_back();
        return worker;
    }
    void give_back(Worker* worker) {
        const std::lock_guard lock(mutex_);
        idle_.push_back(worker);
    }

    /// The least sum of `stage` whose score may reach `limit`, where a sum says so by itself: for cosine.
    static std::int32_t least_sum(const Stage& stage, float limit) noexcept {
        return least_sum_of(limit, stage.extra, stage.unit, 0x1p30);
    }

    void join_blocks(Worker& w, std::size_t block_a, std::size_t first_b, std::size_t end_b) {
        const std::size_t panel_a0 = block_a * block_panels;
        std::fill(w.copied.begin(), w.copied.end(), std::uint8_t{0});
        for (std::size_t block_b = std::max(first_b, self_ ? block_a : 0); block_b < end_b; ++block_b) {
            const std::size_t end_panel_b = std::min((block_b + 1) * block_panels, b_.panels());
            for (std::size_t pb = block_b * block_panels; pb < end_panel_b; ++pb) {
                const std::size_t end_panel_a =
                    std::min(panel_a0 + block_panels, self_ ? pb + 1 : a_.panels());
                prepare_limits(w, panel_a0, pb);
                for (std::size_t pa = panel_a0; pa < end_panel_a; ++pa) {
                    w.work.tiles += panel_groups;
                    if (epilogue_.settled(pa, pb)) {
                        w.work.skipped += panel_groups;
                        continue;
                    }
                    for (std::size_t g = 0; g < panel_groups; ++g) {
                        const std::size_t row = pa * panel_rows + g * group_rows;
                        if (row < a_.n) join_tile(w, row, pb * panel_rows, panel_a0);
                    }
                }
                score_waiting(w);
                if (epilogue_.done(w.slot)) ended_.store(true, std::memory_order_relaxed);
                if (ended_.load(std::memory_order_relaxed)) return;
            }
        }
    }

    float limit_of_row(std::size_t i) const { return i < a_.n ? epilogue_.row_limit(i) : -low; }
    float limit_of_col(std::size_t j) const { return j < b_.n ? epilogue_.col_limit(j) : -low; }

    /// Limits that do not move, as sums, for all rows of a's block.
    void set_limits(Worker& w, std::size_t row0) {
        for (std::size_t s = 0; s < a_.stages.size(); ++s)
            for (std::size_t i = 0; i < block_groups * group_rows; ++i)
                w.limits[s * block_groups * group_rows + i] =
                    row_limit_of_sum(s, row0 + i, limit_of_row(row0 + i));
    }
    std::int32_t row_limit_of_sum(std::size_t s, std::size_t i, float limit) const {
        if (i >= a_.n) return std::numeric_limits<std::int32_t>::max();
        if (a_.metric != Metric::cosine) return std::numeric_limits<std::int32_t>::min();
        return least_sum(a_.stages[s], limit) - a_.stages[s].group_share[i];
    }

    /// Bit c: the pair (row, col + c) exists, and in a self-join has not come already.
    std::uint64_t valid_columns(std::size_t row, std::size_t col) const noexcept {
        if (row >= a_.n) return 0;
        const std::size_t end = std::min(b_.n - col, panel_rows);
        std::uint64_t mask = (std::uint64_t{1} << end) - 1u;
        if (self_ && row + 1 > col) {
            const std::size_t begin = row + 1 - col;
            mask = begin >= panel_rows ? 0 : mask >> begin << begin;
        }
        return mask;
    }

    void join_tile(Worker& w, std::size_t row, std::size_t col, std::size_t panel_a0) {
        if (self_ && row >= col + panel_rows - 1) return;
        if constexpr (Epilogue::moving)
            for (std::size_t r = 0; r < group_rows; ++r) w.row_limits[r] = limit_of_row(row + r);
        if (a_.stages.empty()) {
            score_tile(w, row, col);
            return;
        }
        std::uint32_t left = plan_.load(std::memory_order_relaxed);
        for (; left != 0; left &= left - 1u) {
            const auto s = static_cast<std::size_t>(std::countr_zero(left));
            ++w.work.screened[s];
            if (!reaches(w, s, row, col, panel_a0)) return;
        }
        take_survivors(w, row, col);
    }

    /// Whether stage s leaves a pair of the tile that may reach its limit. The last fills `upper` and
    /// `masks`.
    bool reaches(Worker& w, std::size_t s, std::size_t row, std::size_t col, std::size_t panel_a0) {
        const Kernels& kernels = *a_.kernels;
        const Stage &stage_a = a_.stages[s], &stage_b = b_.stages[s];
        const std::size_t source = stage_a.source, steps = a_.stages[source].steps;
        const std::size_t in_block = row - panel_a0 * panel_rows;
        std::uint8_t* group = w.groups[source].data() + in_block / group_rows * steps * group_step_bytes;
        std::uint8_t& copied = w.copied[source * block_groups + in_block / group_rows];
        if (!copied) {
            kernels.copy_group[kernels.halved_group](
                a_.stages[source].panels.data() + row / panel_rows * steps * panel_step_bytes,
                row % panel_rows / group_rows, steps, group);
            copied = 1;
        }
        const float* col_limits = nullptr;
        const std::int32_t* limits = w.limits.data() + s * block_groups * group_rows + in_block;
        std::int32_t moving[group_rows];
        if constexpr (Epilogue::moving) {
            float least_col = -low;
            if constexpr (Epilogue::both) {
                col_limits = w.col_limits;
                least_col = w.least_col_limit;
            }
            for (std::size_t r = 0; r < group_rows; ++r)
                moving[r] = row_limit_of_sum(s, row + r, std::min(w.row_limits[r], least_col));
            limits = moving;
        }
        if (!kernels.screen(group,
                            b_.stages[source].panels.data() + col / panel_rows * steps * panel_step_bytes,
                            stage_b.steps, stage_b.start.data() + col, limits, w.sums.data()))
            return false;
        // For cosine the sum says it all but for the last stage, whose bounds are asked for.
        const bool last = s + 1 == a_.stages.size();
        if (a_.metric == Metric::cosine && !last) return true;
        if constexpr (!Epilogue::moving)
            for (std::size_t r = 0; r < group_rows; ++r) w.row_limits[r] = limit_of_row(row + r);
        return kernels.bound(w.sums.data(), stage_a.group_share.data() + row,
                             Epilogue::moving ? stage_b.panel_share.data() + col : nullptr,
                             {a_.factors.data() + row, a_.biases.data() + row},
                             {b_.factors.data() + col, b_.biases.data() + col},
                             static_cast<float>(stage_a.unit), static_cast<float>(stage_a.extra),
                             w.row_limits, col_limits, w.upper.data(), w.masks, w.near);
    }

    /// Choose the stages to run by what they leave of some tiles, drawn evenly: those for which the expected
    /// steps of a tile are fewest. A stage that leaves more than an earlier one may still pay behind it, so
    /// every set counts.
    void choose_stages(Worker& w) {
        const std::size_t last = a_.stages.size() - 1;
        if (a_.stages.empty() || last == 0) return;
        std::vector<std::size_t> alive(a_.stages.size(), 0);
        std::size_t drawn = 0;
        std::uint64_t state = 0x2545f4914f6cdd1du;
        const std::size_t groups = (a_.n + group_rows - 1) / group_rows;
        for (std::size_t attempt = 0; attempt < 2 * sampled_tiles; ++attempt) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            const std::size_t row = (state >> 33) % groups * group_rows;
            state = state * 6364136223846793005u + 1442695040888963407u;
            const std::size_t panel_b = (state >> 33) % b_.panels(), col = panel_b * panel_rows;
            if (self_ && row >= col) continue;
            ++drawn;
            const std::size_t panel_a = row / panel_rows, panel_a0 = panel_a / block_panels * block_panels;
            std::fill(w.copied.begin(), w.copied.end(), std::uint8_t{0});
            prepare_limits(w, panel_a0, panel_b);
            if constexpr (Epilogue::moving)
                for (std::size_t r = 0; r < group_rows; ++r) w.row_limits[r] = limit_of_row(row + r);
            for (std::size_t s = 0; s < last; ++s) alive[s] += reaches(w, s, row, col, panel_a0);
        }
        std::uint32_t best = 0;
        double least = std::numeric_limits<double>::infinity();
        for (std::uint32_t set = 0; set < 1u << last; ++set) {
            double expected = 0, share = 1;
            for (std::size_t s = 0; s <= last; ++s) {
                if (s < last && (set >> s & 1u) == 0) continue;
                expected += share * static_cast<double>(a_.stages[s].steps + call_steps);
                share =
                    std::min(share, (static_cast<double>(alive[s]) + 0.5) / static_cast<double>(drawn + 1));
            }
            if (expected < least) least = expected, best = set;
        }
        plan_.store(best | 1u << last, std::memory_order_relaxed);
    }

    void prepare_limits(Worker& w, std::size_t panel_a0, std::size_t panel_b) {
        if constexpr (!Epilogue::moving) {
            if (w.limits_at != panel_a0) set_limits(w, panel_a0 * panel_rows);
            w.limits_at = panel_a0;
        }
        if constexpr (Epilogue::moving && Epilogue::both) {
            for (std::size_t c = 0; c < panel_rows; ++c)
                w.col_limits[c] = limit_of_col(panel_b * panel_rows + c);
            w.least_col_limit = *std::min_element(w.col_limits, w.col_limits + panel_rows);
        }
    }

    /// A lower bound of a pair's score: the upper one less twice the half-width of the bound, and a little
    /// more.
    float lower_bound(float upper, std::size_t i, std::size_t j) const noexcept {
        const Stage &stage_a = a_.stages.back(), &stage_b = b_.stages.back();
        const double shares = static_cast<double>(stage_a.group_share[i] + stage_b.panel_share[j] + 2);
        const double cosine = 2.0 * (shares * stage_a.unit + stage_a.extra);
        if (a_.metric == Metric::cosine) return upper - static_cast<float>(cosine * 1.000001);
        const double bias =
            a_.metric == Metric::l2 ? 16.0 * canonical_error_of(a_.d) * (a_.squares[i] + b_.squares[j]) : 0.0;
        const double factors = static_cast<double>(a_.factors[i]) * static_cast<double>(b_.factors[j]);
        return upper - static_cast<float>((factors * cosine + bias) * 1.000001);
    }

    void take_survivors(Worker& w, std::size_t row, std::size_t col) {
        std::uint64_t wanted[group_rows] = {};
        int count = 0;
        for (std::size_t r = 0; r < group_rows; ++r) {
            std::uint64_t mask = w.masks[r] & valid_columns(row + r, col);
            if constexpr (Epilogue::moving) {
                wanted[r] = mask & w.near[r];
                count += std::popcount(wanted[r]);
                mask ^= wanted[r];
            }
            for (; mask != 0; mask &= mask - 1u) {
                const auto c = static_cast<std::size_t>(std::countr_zero(mask));
                const float upper = w.upper[r * panel_rows + c];
                if constexpr (Epilogue::moving) {
                    epilogue_.postpone(w.slot, row + r, col + c, upper);
                } else {
                    const auto lower = [&] { return lower_bound(upper, row + r, col + c); };
                    if (epilogue_.wants(w.slot, row + r, col + c, upper, lower))
                        wanted[r] |= std::uint64_t{1} << c, ++count;
                }
            }
        }
        if constexpr (Epilogue::moving && !Epilogue::both)
            if (count >= dense_survivors && epilogue_.nearest_only()) count = score_best(w, row, col, wanted);
        if (count == 0) return;
        if (count >= dense_survivors && a_.element != Element::int8) {
            score_tile(w, row, col, wanted);
            return;
        }
        wait(w, row, col, wanted);
    }

    /// Where a row asks for one, its first tile holds 48 that may be it: the best of them by its bound leaves
    /// few.
    int score_best(Worker& w, std::size_t row, std::size_t col, std::uint64_t* wanted) {
        int left = 0;
        for (std::size_t r = 0; r < group_rows; ++r) {
            if (wanted[r] == 0) continue;
            const float* upper = w.upper.data() + r * panel_rows;
            auto best = static_cast<std::size_t>(std::countr_zero(wanted[r]));
            for (std::uint64_t mask = wanted[r]; mask != 0; mask &= mask - 1u) {
                const auto c = static_cast<std::size_t>(std::countr_zero(mask));
                if (upper[c] > upper[best]) best = c;
            }
            offer(w, row + r, col + best, a_.score(row + r, b_, col + best));
            ++w.work.scored_pairs;
            wanted[r] ^= std::uint64_t{1} << best;
            const float limit = limit_of_row(row + r);
            for (std::uint64_t mask = wanted[r]; mask != 0; mask &= mask - 1u) {
                const auto c = static_cast<std::size_t>(std::countr_zero(mask));
                if (upper[c] < limit) wanted[r] ^= std::uint64_t{1} << c;
            }
            left += std::popcount(wanted[r]);
        }
        return left;
    }

    /// The pairs of a tile that `masks` names are scored soon.
    void wait(Worker& w, std::size_t row, std::size_t col, const std::uint64_t* masks) {
        for (std::size_t r = 0; r < group_rows; ++r)
            for (std::uint64_t mask = masks[r]; mask != 0; mask &= mask - 1u, ++w.waiting) {
                w.waiting_rows[w.waiting] = static_cast<std::uint32_t>(row + r);
                w.waiting_cols[w.waiting] =
                    static_cast<std::uint32_t>(col) + static_cast<std::uint32_t>(std::countr_zero(mask));
            }
        if (w.waiting >= waiting_pairs) score_waiting(w);
    }

    void score_waiting(Worker& w) {
        constexpr std::size_t most = waiting_pairs + group_rows * panel_rows;
        // In order of their columns, of which a panel has few: each is read from memory once.
        std::uint32_t rows[most], cols[most], ends[panel_rows + 1] = {};
        float scores[most];
        for (std::size_t k = 0; k < w.waiting; ++k) ++ends[w.waiting_cols[k] % panel_rows + 1];
        for (std::size_t c = 0; c < panel_rows; ++c) ends[c + 1] += ends[c];
        for (std::size_t k = 0; k < w.waiting; ++k) {
            const std::uint32_t place = ends[w.waiting_cols[k] % panel_rows]++;
            rows[place] = w.waiting_rows[k], cols[place] = w.waiting_cols[k];
        }
        w.work.scored_pairs += w.waiting;
        a_.scores(rows, b_, cols, w.waiting, scores);
        for (std::size_t k = 0; k < w.waiting; ++k) offer(w, rows[k], cols[k], scores[k]);
        w.waiting = 0;
    }

    void offer(Worker& w, std::size_t i, std::size_t j, float score) {
        if (score >= epilogue_.row_limit(i) || (Epilogue::both && score >= epilogue_.col_limit(j)))
            epilogue_.take(w.slot, i, j, score);
    }

    /// Canonical scores of a whole tile; `wanted` null: of every pair there is.
    void score_tile(Worker& w, std::size_t row, std::size_t col, const std::uint64_t* wanted = nullptr) {
        ++w.work.scored_tiles;
        const std::size_t width = (a_.d + lanes - 1) / lanes * lanes;
        const bool tiled = a_.element != Element::int8 && width > 0;
        if (tiled) {
            for (std::size_t r = 0; r < group_rows; ++r)
                a_.widen(std::min(row + r, a_.n - 1), w.wide_group.data() + r * width);
            if (w.wide_panel_at != col)
                for (std::size_t c = 0; c < panel_rows; ++c)
                    b_.widen(std::min(col + c, b_.n - 1), w.wide_panel.data() + c * width);
            w.wide_panel_at = col;
            a_.kernels->canonical_tile(w.wide_group.data(), w.wide_panel.data(), width, width, w.dots.data());
        }
        std::uint64_t masks[group_rows];
        for (std::size_t r = 0; r < group_rows; ++r)
            masks[r] = valid_columns(row + r, col) & (wanted != nullptr ? wanted[r] : ~std::uint64_t{0});
        if (!tiled) {
            wait(w, row, col, masks);
            return;
        }
        for (std::size_t r = 0; r < group_rows; ++r)
            for (std::uint64_t mask = masks[r]; mask != 0; mask &= mask - 1u) {
                const auto c = static_cast<std::size_t>(std::countr_zero(mask));
                const std::size_t i = row + r, j = col + c;
                offer(w, i, j,
                      rowwise::similarity_of(a_.metric, static_cast<double>(w.dots[r * panel_rows + c]),
                                             a_.squares[i], b_.squares[j]));
            }
    }

    /// Once at the start; where limits rise, after the tasks `beside` the diagonal, and later again.
    static bool chooses_at(std::size_t task, std::size_t beside, std::size_t tasks) noexcept {
        if (!Epilogue::moving) return task == 0;
        return task > 0 && (task == beside || task == beside + (tasks - beside) / 16 || task == tasks / 2);
    }

    const Operand &a_, &b_;
    const bool self_;
    Epilogue& epilogue_;
    std::atomic<std::uint32_t> plan_;  // bit s: stage s runs
    std::atomic<bool> ended_{false};
    std::mutex mutex_;
    std::vector<std::unique_ptr<Worker>> workers_;
    std::vector<Worker*> idle_;
};

}  // namespace pycurate::fused_similarity
