#pragma once
// One join on a device: what the kernel is told, and the loop that starts it until every tile was met.
#include <cstdint>

#include "cuda/canonical.cuh"
#include "cuda/fused_similarity.h"
#include "cuda/layout.h"

namespace pycurate::cuda {

enum class Question : std::uint32_t { pairs, forest, counts, earlier, nearest };

/// Warps of a block of the kernel.
constexpr std::uint32_t block_warps = 8;
/// Pairs that wait in a warp's queue where limits move: so many are scored together, on top of which a tile
/// may bring all of its own; and those that wait for final limits. 68 KB a warp, 140 MB for 264 blocks.
constexpr std::uint32_t queue_drain = 192, queue_room = queue_drain + tile_rows / block_warps * tile_rows;
constexpr std::uint32_t postponed_room = 4096;

/// One side of a join, by position.
struct SideView {
    const std::int8_t* quantised;
    const std::int32_t* shares;
    const float *factors, *biases;
    const double* squares;
    const std::uint32_t *order, *row_numbers;
    Rows rows;
    std::uint32_t n, positions;
};

struct Found {
    std::uint32_t i, j;  // positions
    float similarity;
};

/// Counters that a kernel and its host share.
struct Counters {
    std::uint32_t next_task, unfinished;
    unsigned long long found, skipped, scored;
    unsigned long long alive[most_stages];  // tiles that each stage left
    unsigned long long screened[most_stages];
};

struct JoinParams {
    SideView a, b;
    std::uint32_t self, screened, pitch, stages;
    // See Route. The sums begin anew behind the prefix, whose chunks used are the first of a row.
    std::uint32_t prefix_chunks, used_prefix;
    std::uint32_t stage_chunks[most_stages];
    std::uint32_t plan;  // bit s: tiles are screened at stage s; the last always is
    Question question;
    Metric metric;
    float threshold;
    double unit[most_stages],
        extra[most_stages];  // of a stage's sums, in cosine; what float32 loses beside shares
    // Tasks, see Schedule.
    const std::uint32_t* first_task;
    std::uint32_t strips, tiles_a, tiles_b, tiles_of_strip, tasks_end;
    std::uint32_t* progress;  // per task, tiles that are done
    std::uint32_t sample;     // not 0: one tile of each so many-th task, at every stage; nothing is found
    Counters* counters;
    // pairs, forest: found pairs; a task stops before a tile when so many have been found.
    Found* found;
    unsigned long long found_limit;
    // forest
    std::uint32_t* parents;  // of a's positions, then of b's
    std::uint8_t* whole;     // per tile of a, then of b: all of its rows are connected
    std::uint32_t offset_b;  // of b's first position in `parents`
    // counts; weights may be null
    unsigned long long *counts_a, *counts_b;    // by index
    const std::int64_t *weights_a, *weights_b;  // by index
    // earlier
    const std::uint32_t *ranks_a, *ranks_b;  // by index
    unsigned long long *best_a, *best_b;     // by index: Ranked
    // nearest
    unsigned long long* lists;  // (n of a, k) by position, falling: Ranked by first_b + index of b
    std::uint32_t k, first_b;
    uint2*
        queues;  // (blocks, block_warps, 2 queue_room + postponed_room): position of b, packed row and bound
};

/// What a question adds to the parameters of a join, and what happens after each launch of the kernel.
struct Asking {
    Question question;
    float threshold;
    std::size_t found_room = 0;  // pairs the host takes at a time
    /// Pairs found since the last call; true ends the join.
    std::function<bool(const std::vector<Found>&)> take = {};
    std::function<void(JoinParams&)> set = {};
};

/// False: stopped by `poll`.
bool run_join(const Operand& a, const Operand* b, const Asking& asking, const Poll& poll, Work& work);

/// Starts the kernel on the current device.
void launch_join(const JoinParams& params, std::uint32_t blocks);
/// Blocks of the kernel that the current device holds at a time.
std::uint32_t resident_blocks();

}  // namespace pycurate::cuda
