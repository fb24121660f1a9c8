// Sums of exponentials over rows and over columns, of canonical similarities. A sum is over eights of
// consecutive indices (Kernels::add_exponentials), parts of 384, blocks of 4,096, each merged in order, the
// same of rows and of columns: threads, the order of an operand and which side is which change nothing.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include "common/float_environment.h"
#include "common/thread_pool.h"
#include "kernels/fused_similarity/fused_similarity.h"
#include "kernels/rowwise/similarity.h"

namespace pycurate::fused_similarity {
namespace {

constexpr std::size_t block_rows = 4096;
constexpr std::size_t part_rows = 384;  // a task's rows: 768 KB widened, at 512 coordinates
constexpr std::size_t block_parts = (block_rows + part_rows - 1) / part_rows;
// Parts whose sums over a block of columns wait to be merged: 48 KB each, 17 MB in all.
constexpr std::size_t wave_blocks = 32;
static_assert(part_rows % panel_rows == 0 && part_rows % group_rows == 0 && block_rows % group_rows == 0);

/// sum * 2^exponent; see exponent_room.
struct ExpSum {
    double exponent = no_exponent, sum = 0;

    /// Exact but for sums that are 0 beside a term of 2^to, of which there must be one.
    void raise(double to) noexcept {
        if (!(to > exponent)) return;
        sum = std::ldexp(sum, static_cast<int>(std::max(exponent - to, -3000.0)));
        exponent = to;
    }
    void add(ExpSum other) noexcept {
        raise(other.exponent);
        other.raise(exponent);
        sum += other.sum;
    }
    double log() const noexcept { return exponent * ln2 + (exponent * ln2_rest + std::log(sum)); }
};

/// Position of every index.
std::vector<std::uint32_t> positions_of(const Operand& o) {
    std::vector<std::uint32_t> positions(o.n);
    for (std::size_t i = 0; i < o.n; ++i) positions[o.order[i]] = static_cast<std::uint32_t>(i);
    return positions;
}

/// Asks `poll`, which only the calling thread may, every 100 ms; a task takes minutes in the worst case.
class Stop {
  public:
    Stop(const Poll& poll, double panels) : poll_(poll), panels_(panels) {}
    /// True: end. Called after each panel of columns of a task.
    bool after_panel() {
        const std::uint64_t finished = finished_.fetch_add(1, std::memory_order_relaxed) + 1;
        if (poll_ && std::this_thread::get_id() == caller_ &&
            Clock::now() - polled_ > std::chrono::milliseconds(100)) {
            if (poll_(std::min(1.0, static_cast<double>(finished) / panels_)))
                stopped_.store(true, std::memory_order_relaxed);
            polled_ = Clock::now();
        }
        return stopped();
    }
    bool stopped() const noexcept { return stopped_.load(std::memory_order_relaxed); }

  private:
    using Clock = std::chrono::steady_clock;
    const Poll& poll_;
    const double panels_;
    const std::thread::id caller_ = std::this_thread::get_id();
    Clock::time_point polled_ = Clock::now();
    std::atomic<std::uint64_t> finished_{0};
    std::atomic<bool> stopped_{false};
};

/// Consecutive indices of one side, at most a part or a panel, filled up to a multiple of a group.
class Side {
  public:
    Side(const Operand& o, const std::vector<std::uint32_t>& positions, std::size_t most)
        : o_(o),
          positions_(positions),
          width_((o.d + lanes - 1) / lanes * lanes),
          squares_(most),
          inverses_(most),
          rows_(tiled() ? most * width_ : 0) {}
    bool tiled() const noexcept { return o_.element != Element::int8 && o_.d > 0; }
    void load(std::size_t begin, std::size_t count) {
        begin_ = begin, count_ = count;
        const std::size_t padded = (count + panel_rows - 1) / panel_rows * panel_rows;
        for (std::size_t i = 0; i < std::min(padded, squares_.size()); ++i) {
            // The last row stands for those that are not there.
            const std::size_t at = positions_[begin + std::min(i, count - 1)];
            squares_[i] = o_.squares[at];
            inverses_[i] = 1.0 / std::sqrt(squares_[i]);
            if (tiled()) o_.widen(at, rows_.data() + i * width_);
        }
    }
    std::size_t count() const noexcept { return count_; }
    std::size_t width() const noexcept { return width_; }
    std::size_t position(std::size_t i) const noexcept { return positions_[begin_ + i]; }
    const float* row(std::size_t i) const noexcept { return rows_.data() + i * width_; }
    Norms norms(std::size_t i) const noexcept { return {squares_.data() + i, inverses_.data() + i}; }

  private:
    const Operand& o_;
    const std::vector<std::uint32_t>& positions_;
    std::size_t width_, begin_ = 0, count_ = 0;
    std::vector<double> squares_, inverses_;
    AlignedBuffer<float> rows_;
};

/// One part of p's rows with one block of q's.
class Task {
  public:
    Task(const Operand& p, const Operand& q, const std::vector<std::uint32_t>& positions_p,
         const std::vector<std::uint32_t>& positions_q, double scale)
        : p_(p),
          q_(q),
          scale_(scale),
          rows_(p, positions_p, part_rows),
          cols_(q, positions_q, panel_rows),
          units_(part_rows),
          sums_(part_rows),
          blocks_(part_rows) {}

    /// Adds to `totals` of the rows and sets `partial` of the columns. False: stopped.
    bool run(std::size_t row, std::size_t row_count, std::size_t col, std::size_t col_count, ExpSum* totals,
             ExpSum* partial, Stop& stop) {
        rows_.load(row, row_count);
        std::fill(units_.begin(), units_.end(), no_exponent);
        for (std::size_t i = 0; i < row_count; ++i) units_[i] = totals[i].exponent;
        std::fill(sums_.begin(), sums_.end(), 0.0);
        std::fill(blocks_.begin(), blocks_.end(), ExpSum{});
        for (std::size_t c = 0; c < col_count; c += panel_rows) {
            const std::size_t count = std::min(panel_rows, col_count - c);
            cols_.load(col + c, count);
            std::fill_n(col_units_, panel_rows, no_exponent);
            std::fill_n(col_sums_, panel_rows, 0.0);
            for (std::size_t r = 0; r < row_count; r += group_rows) add_tile(r);
            for (std::size_t i = 0; i < count; ++i) partial[c + i] = {col_units_[i], col_sums_[i]};
            if ((c + panel_rows) % part_rows == 0 || c + panel_rows >= col_count) end_part(row_count);
            if (stop.after_panel()) return false;
        }
        for (std::size_t i = 0; i < row_count; ++i) totals[i].add(blocks_[i]);
        return true;
    }

  private:
    void end_part(std::size_t row_count) {
        for (std::size_t i = 0; i < row_count; ++i) {
            blocks_[i].add({units_[i], sums_[i]});
            sums_[i] = 0;
        }
    }

    void add_tile(std::size_t r) {
        const Kernels& kernels = *p_.kernels;
        const std::size_t row_count = std::min(group_rows, rows_.count() - r);
        if (rows_.tiled()) {
            kernels.canonical_tile(rows_.row(r), cols_.row(0), rows_.width(), rows_.width(), dots_);
            kernels.scores(dots_, rows_.norms(r), cols_.norms(0), p_.metric, scores_);
        } else {
            for (std::size_t i = 0; i < row_count; ++i)
                for (std::size_t c = 0; c < cols_.count(); ++c)
                    scores_[i * panel_rows + c] = p_.score(rows_.position(r + i), q_, cols_.position(c));
        }
        constexpr auto nan = static_cast<float>(rowwise::quiet_nan);
        for (std::size_t i = 0; i < row_count; ++i)
            std::fill(scores_ + i * panel_rows + cols_.count(), scores_ + (i + 1) * panel_rows, nan);
        std::fill(scores_ + row_count * panel_rows, scores_ + group_rows * panel_rows, nan);
        double *units = units_.data() + r, *sums = sums_.data() + r;
        if (kernels.exponentials(scores_, scale_, units, col_units_, mantissas_, exponents_))
            raise_units(units, sums);
        kernels.add_exponentials(mantissas_, exponents_, units, col_units_, sums, col_sums_);
    }

    /// Seldom: a tile has a term that is large beside the sums so far.
    void raise_units(double* units, double* sums) {
        const auto raise = [](double exponent, double& unit, double& sum) {
            if (!(exponent > unit + exponent_room)) return;
            ExpSum raised{unit, sum};
            raised.raise(exponent);
            unit = raised.exponent, sum = raised.sum;
        };
        for (std::size_t r = 0; r < group_rows; ++r) {
            const double* row = exponents_ + r * panel_rows;
            raise(*std::max_element(row, row + panel_rows), units[r], sums[r]);
        }
        for (std::size_t c = 0; c < panel_rows; ++c) {
            double most = no_exponent;
            for (std::size_t r = 0; r < group_rows; ++r)
                most = std::max(most, exponents_[r * panel_rows + c]);
            raise(most, col_units_[c], col_sums_[c]);
        }
    }

    const Operand &p_, &q_;
    const double scale_;
    Side rows_, cols_;
    std::vector<double> units_, sums_;
    std::vector<ExpSum> blocks_;
    double col_units_[panel_rows], col_sums_[panel_rows];
    alignas(64) float dots_[group_rows * panel_rows], scores_[group_rows * panel_rows];
    alignas(64) double mantissas_[group_rows * panel_rows], exponents_[group_rows * panel_rows];
};

}  // namespace

bool log_sum_exp(const Operand& a, const Operand& b, double scale, double* out_a, double* out_b,
                 std::size_t threads, const Poll& poll, Work& work) {
    // Tasks are parts of the longer side.
    if (a.n < b.n) return log_sum_exp(b, a, scale, out_b, out_a, threads, poll, work);
    const auto positions_a = positions_of(a), positions_b = positions_of(b);
    std::vector<ExpSum> rows(a.n), cols(b.n);
    struct Part {
        std::size_t begin, count;
        bool ends_block;
    };
    std::vector<Part> parts;
    for (std::size_t block = 0; block < a.n; block += block_rows) {
        const std::size_t end = std::min(a.n, block + block_rows);
        for (std::size_t i = block; i < end; i += part_rows)
            parts.push_back({i, std::min(part_rows, end - i), i + part_rows >= end});
    }
    const double panels_b = std::ceil(static_cast<double>(b.n) / panel_rows);
    Stop stop(poll, static_cast<double>(parts.size()) * panels_b);
    constexpr std::size_t wave = wave_blocks * block_parts;
    std::vector<ExpSum> partial(std::min(wave, parts.size()) * std::min(block_rows, b.n));
    for (std::size_t col = 0; col < b.n; col += block_rows) {
        const std::size_t col_count = std::min(block_rows, b.n - col);
        std::vector<ExpSum> block(col_count);
        for (std::size_t first = 0; first < parts.size(); first += wave) {
            const std::size_t count = std::min(wave, parts.size() - first);
            parallel_for(count, threads, [&](std::size_t t) {
                if (stop.stopped()) return;
                const DefaultFloatEnvironment environment;
                const Part& part = parts[first + t];
                Task(a, b, positions_a, positions_b, scale)
                    .run(part.begin, part.count, col, col_count, rows.data() + part.begin,
                         partial.data() + t * col_count, stop);
            });
            if (stop.stopped()) return false;
            for (std::size_t t = 0; t < count; ++t) {
                for (std::size_t j = 0; j < col_count; ++j) block[j].add(partial[t * col_count + j]);
                if (!parts[first + t].ends_block) continue;
                for (std::size_t j = 0; j < col_count; ++j) cols[col + j].add(block[j]);
                std::fill(block.begin(), block.end(), ExpSum{});
            }
        }
    }
    const auto panels = static_cast<std::uint64_t>(panels_b);
    work.tiles = work.scored_tiles = (a.n + group_rows - 1) / group_rows * panels;
    for (std::size_t i = 0; i < a.n; ++i) out_a[i] = rows[i].log();
    for (std::size_t j = 0; j < b.n; ++j) out_b[j] = cols[j].log();
    return true;
}

}  // namespace pycurate::fused_similarity
