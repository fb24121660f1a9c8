// Blocks of rows over threads, and their sums in order.
#include <algorithm>
#include <memory>
#include <mutex>

#include "common/aligned_buffer.h"
#include "common/float_environment.h"
#include "common/thread_pool.h"
#include "kernels/graph/sweeps.h"

namespace pycurate::graph {
namespace {

std::size_t blocks_of(std::size_t rows) noexcept { return (rows + block_rows - 1) / block_rows; }

/// Lanes folded +8, +4, +2, +1.
double folded(double* lanes) noexcept {
    for (std::size_t half = change_lanes / 2; half > 0; half /= 2)
        for (std::size_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    return lanes[0];
}

/// Call task(block, begin, end) for every block of rows.
template <class Task>
bool by_blocks(std::size_t rows, std::size_t threads, const Poll& poll, const Task& task) {
    return parallel_for(
        blocks_of(rows), threads,
        [&](std::size_t block) {
            const DefaultFloatEnvironment environment;
            const std::size_t begin = block * block_rows;
            task(block, begin, std::min(begin + block_rows, rows));
        },
        poll);
}

/// Rooms that tasks take and give back, so that there are as many as threads.
template <class Room>
class Rooms {
  public:
    explicit Rooms(std::size_t size) : size_(size) {}
    std::unique_ptr<Room> take() {
        const std::lock_guard lock(mutex_);
        if (free_.empty()) return std::make_unique<Room>(size_);
        auto room = std::move(free_.back());
        free_.pop_back();
        return room;
    }
    void give(std::unique_ptr<Room> room) {
        const std::lock_guard lock(mutex_);
        free_.push_back(std::move(room));
    }

  private:
    std::size_t size_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Room>> free_;
};

template <class T>
struct DenseBuffers {
    explicit DenseBuffers(std::size_t width) : sums(width), seeds(width) {
        std::fill_n(seeds.data(), width, T{0});
    }
    AlignedBuffer<T> sums, seeds;
};

template <class T>
bool dense_of(const DenseSweep<T>& sweep, std::size_t threads, const Poll& poll, auto kernel) {
    Rooms<DenseBuffers<T>> rooms(sweep.width);
    return by_blocks(sweep.edges.rows, threads, poll,
                     [&](std::size_t block, std::size_t begin, std::size_t end) {
                         auto room = rooms.take();
                         double lanes[change_lanes] = {};
                         kernel(sweep, begin, end, RowRoom<T>{room->sums.data(), room->seeds.data()}, lanes);
                         sweep.changes[block] = folded(lanes);
                         rooms.give(std::move(room));
                     });
}

struct TableBuffers {
    explicit TableBuffers(std::size_t labels)
        : sums(padded(labels)),
          seen(labels > table_labels ? labels : 0),
          touched(labels > table_labels ? labels : 0) {}
    std::vector<float> sums;
    std::vector<std::uint8_t> seen;
    std::vector<std::uint32_t> touched;
};

/// totals[c] = the sums of column c over all blocks, in order.
void merge_columns(const std::vector<double>& sums, std::size_t width, double* totals) noexcept {
    std::fill_n(totals, width, 0.0);
    for (std::size_t at = 0; at < sums.size(); ++at) totals[at % width] += sums[at];
}

}  // namespace

bool sweep_dense(const DenseSweep<float>& sweep, std::size_t threads, const Poll& poll) {
    return dense_of(sweep, threads, poll, active_kernels().dense_float);
}

bool sweep_dense(const DenseSweep<double>& sweep, std::size_t threads, const Poll& poll) {
    return dense_of(sweep, threads, poll, active_kernels().dense_double);
}

bool sweep_top(const TopSweep& sweep, std::size_t threads, const Poll& poll) {
    Rooms<TableBuffers> rooms(sweep.labels);
    const auto kernel = active_kernels().top;
    return by_blocks(
        sweep.edges.rows, threads, poll, [&](std::size_t block, std::size_t begin, std::size_t end) {
            auto room = rooms.take();
            sweep.changes[block] =
                kernel(sweep, begin, end, {room->sums.data(), room->seen.data(), room->touched.data()});
            rooms.give(std::move(room));
        });
}

bool cg_product(const Edges<float>& edges, const std::uint8_t* clamped, const float* direction,
                float* product, std::size_t width, float alpha, double* dots, std::size_t threads,
                const Poll& poll) {
    std::vector<double> sums(blocks_of(edges.rows) * width, 0.0);
    const auto kernel = active_kernels().product;
    const bool finished =
        by_blocks(edges.rows, threads, poll, [&](std::size_t block, std::size_t begin, std::size_t end) {
            kernel(edges, clamped, direction, product, width, alpha, begin, end, sums.data() + block * width);
        });
    merge_columns(sums, width, dots);
    return finished;
}

bool cg_step(const CgStep& step, std::size_t threads, const Poll& poll) {
    std::vector<double> sums(blocks_of(step.rows) * step.width, 0.0);
    const auto kernel = active_kernels().step;
    const bool finished =
        by_blocks(step.rows, threads, poll, [&](std::size_t block, std::size_t begin, std::size_t end) {
            double lanes[change_lanes] = {};
            kernel(step, begin, end, sums.data() + block * step.width, lanes);
            step.changes[block] = folded(lanes);
        });
    merge_columns(sums, step.width, step.squares);
    return finished;
}

bool cg_turn(const float* residual, const float* ratio, float* direction, std::size_t rows, std::size_t width,
             std::size_t threads, const Poll& poll) {
    const auto kernel = active_kernels().turn;
    return by_blocks(rows, threads, poll, [&](std::size_t, std::size_t begin, std::size_t end) {
        kernel(residual, ratio, direction, width, begin, end);
    });
}

}  // namespace pycurate::graph
