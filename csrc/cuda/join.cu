// Starts the join's kernel, slice by slice, until every tile was met.
#include "cuda/join.h"

#include <cuda_runtime.h>

#include <atomic>
#include <chrono>
#include <limits>

#include "cuda/rows.h"

namespace pycurate::cuda {
namespace {

using Clock = std::chrono::steady_clock;

// A slice of the tasks is what a kernel is started with: Ctrl-C is asked for between slices.
constexpr double slice_seconds = 0.1;
// What screening a tile costs beside its products, in chunks of them.
constexpr double screening_chunks = 0.8;
constexpr std::uint32_t sampled_tiles = 4096, least_sampled = 64;

std::atomic<bool> whole_rows{false};

SideView view_of(const Operand& o) {
    return {o.quantised.get(),
            o.shares.get(),
            o.factors.get(),
            o.biases.get(),
            o.squares.get(),
            o.order.get(),
            o.row_numbers.get(),
            rows_of(*o.x),
            static_cast<std::uint32_t>(o.n),
            static_cast<std::uint32_t>(o.positions())};
}

}  // namespace

void screen_whole_rows(bool always) noexcept { whole_rows.store(always); }

bool run_join(const Operand& a, const Operand* other, const Asking& asking, const Poll& poll, Work& work) {
    const Operand& b = other != nullptr ? *other : a;
    if (a.n == 0 || b.n == 0) return true;
    const std::uint32_t blocks = resident_blocks();
    JoinParams p{};
    p.a = view_of(a), p.b = view_of(b);
    p.self = other == nullptr;
    p.screened = a.screened;
    p.pitch = static_cast<std::uint32_t>(a.pitch);
    p.prefix_chunks = static_cast<std::uint32_t>(a.prefix_chunks);
    const std::vector<std::uint32_t> rotated = stage_chunks(p.pitch / chunk_coordinates - p.prefix_chunks);
    p.stages = p.prefix_chunks + static_cast<std::uint32_t>(rotated.size());
    const auto follow = [&](JoinParams& params, std::uint32_t plan) {
        const Route route(plan, p.prefix_chunks, rotated);
        params.plan = plan, params.used_prefix = route.prefix;
        std::copy(route.chunks_at.begin(), route.chunks_at.end(), params.stage_chunks);
    };
    const std::uint32_t every_stage = (1u << p.stages) - 1u;
    follow(p, 1u << (p.stages - 1));
    p.question = asking.question, p.metric = a.metric, p.threshold = asking.threshold;
    for (std::uint32_t s = 0; p.screened && s < p.stages; ++s) {
        p.unit[s] = s < p.prefix_chunks ? a.prefix_unit : unit_of(a.d);
        p.extra[s] = s < p.prefix_chunks ? a.prefix_extra : extra_of(a.d);
    }

    const bool square = asking.question == Question::nearest;
    const auto tiles = [](std::size_t n) { return (n + tile_rows - 1) / tile_rows; };
    // Few tiles: shorter strips, so that there are tasks for every block.
    const auto tasks_wanted = std::max<std::size_t>(tiles(a.n) * tiles(b.n) / (8 * std::size_t{blocks}), 1);
    const auto strip =
        static_cast<std::uint32_t>(square ? tiles(b.n) : std::min<std::size_t>(strip_tiles, tasks_wanted));
    const Schedule schedule(a.n, b.n, p.self != 0 && !square, strip);
    p.tiles_a = schedule.tiles_a, p.tiles_b = schedule.tiles_b, p.tiles_of_strip = strip;
    const auto first = Buffer<std::uint32_t>::of(schedule.first);
    p.first_task = first.get(), p.strips = static_cast<std::uint32_t>(schedule.first.size() - 1);
    Buffer<std::uint32_t> progress(schedule.tasks());
    progress.zero();
    p.progress = progress.get();
    Buffer<Counters> counters(1);
    p.counters = counters.get();
    // A block that began a tile finds room for all of its pairs.
    p.found_limit =
        asking.found_room > 0 ? asking.found_room : std::numeric_limits<unsigned long long>::max();
    Buffer<Found> found(asking.found_room > 0
                            ? asking.found_room +
                                  std::size_t{blocks} * (tile_rows * tile_rows + block_warps * 16)
                            : 0);
    p.found = found.get();
    Buffer<uint2> queues(square ? std::size_t{blocks} * block_warps * (2 * queue_room + postponed_room) : 0);
    p.queues = queues.get();
    p.offset_b = p.self ? 0 : p.a.n;
    if (asking.set) asking.set(p);

    const auto launch = [&](JoinParams& params, std::uint32_t begin, std::uint32_t end) {
        Counters start{};
        start.next_task = begin;
        copy_in(counters.get(), &start, sizeof start);
        params.tasks_end = end;
        launch_join(params, std::min(blocks, std::max(end - begin, 1u)));
        Counters result;
        copy_out(&result, counters.get(), sizeof result);
        return result;
    };
    const auto choose_plan = [&](std::uint32_t tasks) {
        JoinParams sampling = p;
        follow(sampling, every_stage);
        sampling.sample = std::max(tasks / sampled_tiles, 1u);
        const Counters seen = launch(sampling, 0, tasks);
        if (seen.screened[0] < least_sampled) return;
        std::vector<double> alive;
        for (std::uint32_t s = 0; s < p.stages; ++s)
            alive.push_back(static_cast<double>(seen.alive[s]) / static_cast<double>(seen.screened[s]));
        follow(p, cheapest_plan(alive, p.prefix_chunks, rotated, screening_chunks));
    };
    const std::uint32_t tasks = schedule.tasks();
    const bool chooses =
        p.screened && p.stages > 1 && !whole_rows.load() && schedule.tiles() > 2 * least_sampled;
    if (chooses && !square) choose_plan(tasks);
    std::vector<Found> pairs;
    std::uint32_t slice = blocks * (square ? 1 : 8);
    for (std::uint32_t begin = 0; begin < tasks;) {
        const std::uint32_t end = begin + std::min(slice, tasks - begin);
        const auto started = Clock::now();
        for (bool finished = false; !finished;) {
            const Counters seen = launch(p, begin, end);
            work.scored_pairs += seen.scored, work.skipped += seen.skipped;
            finished = seen.unfinished == 0;
            if (asking.take && seen.found > 0) {
                pairs.resize(seen.found);
                copy_out(pairs.data(), found.get(), pairs.size() * sizeof(Found));
                if (asking.take(pairs)) return true;
            }
            if (poll && poll(static_cast<double>(finished ? end : begin) / static_cast<double>(tasks)))
                return false;
        }
        // Rows that have met all others have their limits: what stages leave of those, they will of others.
        if (chooses && square && begin == 0) choose_plan(end);
        const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
        if (seconds < slice_seconds / 2) slice = std::min(slice, tasks) * 2;
        if (seconds > 2 * slice_seconds) slice = std::max(slice / 2, blocks);
        begin = end;
    }
    work.tiles += schedule.tiles();
    work.screened.assign(p.stages, 0);
    for (std::uint32_t s = 0; s < p.stages; ++s) work.screened[s] = p.plan >> s & 1u;
    return true;
}

}  // namespace pycurate::cuda
