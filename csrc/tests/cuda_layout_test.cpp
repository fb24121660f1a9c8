// What a device's join does on the host or shares with it: tasks, places, plans, and the bound of a pair. The
// quantiser is mirrored here as csrc/cuda/operand.cu has it.
#include "cuda/layout.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <set>

#include "fused_similarity_problems.h"
#include "kernels/fused_similarity/shares.h"

namespace pycurate::tests {
namespace {

using namespace cuda;

std::size_t tiles_of(std::size_t n) { return (n + tile_rows - 1) / tile_rows; }

void every_tile_is_met_once() {
    const std::size_t sizes[] = {0, 1, 127, 128, 129, 1000, 4096, 4097, 8191};
    for (const std::size_t n_a : sizes)
        for (const std::size_t n_b : sizes)
            for (const std::uint32_t strip : {1u, 2u, 3u, 7u, 31u, 32u, 33u, 100u})
                for (const bool self : {false, true}) {
                    if (self && n_a != n_b) continue;
                    const Schedule schedule(n_a, n_b, self, strip);
                    const std::size_t tiles_a = tiles_of(n_a), tiles_b = tiles_of(n_b);
                    std::vector<std::uint32_t> met(tiles_a * tiles_b);
                    std::uint32_t strip_before = 0;
                    const auto strips = static_cast<std::uint32_t>(schedule.first.size() - 1);
                    bool inside = true;
                    for (std::uint32_t task = 0; task < schedule.tasks(); ++task) {
                        const std::uint32_t at = strip_of(schedule.first.data(), strips, task);
                        inside &= at < strips && at >= strip_before && schedule.first[at] <= task &&
                                  task < schedule.first[at + 1];
                        strip_before = at;
                        // As join_tiles takes them.
                        const std::uint32_t tile_a = task - schedule.first[at];
                        std::uint32_t begin = at * strip;
                        const std::uint32_t end = std::min(begin + strip, schedule.tiles_b);
                        if (self) begin = std::max(begin, tile_a);
                        inside &= tile_a < schedule.tiles_a && begin < end;
                        for (std::uint32_t tile_b = begin; tile_b < end; ++tile_b)
                            ++met[tile_a * tiles_b + tile_b];
                    }
                    std::uint64_t wrong = 0, count = 0;
                    for (std::size_t i = 0; i < tiles_a; ++i)
                        for (std::size_t j = 0; j < tiles_b; ++j) {
                            const std::uint32_t expected = !self || i <= j;
                            wrong += met[i * tiles_b + j] != expected;
                            count += expected;
                        }
                    const std::string what = std::to_string(n_a) + " x " + std::to_string(n_b) +
                                             ", strips of " + std::to_string(strip) + (self ? ", self" : "");
                    check(inside, "a task lies in its strip and has a tile, " + what);
                    check(wrong == 0, std::to_string(wrong) + " tiles not met once, " + what);
                    check(count == schedule.tiles(), "the number of tiles, " + what);
                }
}

void a_chunk_has_a_place_for_every_segment_and_no_bank_waits() {
    std::set<std::uint32_t> places;
    for (std::uint32_t row = 0; row < tile_rows; ++row)
        for (std::uint32_t segment = 0; segment < row_segments; ++segment) {
            const std::uint32_t place = place_in_chunk(row, segment);
            check(place % segment_bytes == 0 && place + segment_bytes <= chunk_bytes, "a place in the chunk");
            check(place / chunk_coordinates == row, "a row stays in its 64 bytes");
            places.insert(place);
        }
    check(places.size() == tile_rows * row_segments, "every segment has a place of its own");
    // ldmatrix reads a segment of eight rows at a time: 32 banks of four bytes.
    for (std::uint32_t row = 0; row < tile_rows; row += 8)
        for (std::uint32_t segment = 0; segment < row_segments; ++segment) {
            std::set<std::uint32_t> banks;
            for (std::uint32_t r = row; r < row + 8; ++r)
                for (std::uint32_t byte = 0; byte < segment_bytes; byte += 4)
                    banks.insert((place_in_chunk(r, segment) + byte) / 4 % 32);
            check(banks.size() == 32, "eight rows of a segment touch every bank");
        }
}

void stages_and_routes() {
    for (std::uint32_t chunks = 1; chunks <= most_coordinates / chunk_coordinates; ++chunks) {
        const auto stages = stage_chunks(chunks);
        check(stages.back() == chunks && stages.size() + most_prefix_chunks <= most_stages, "stages");
        for (std::size_t s = 1; s < stages.size(); ++s)
            check(stages[s - 1] < stages[s], "stages rise, each once");
    }
    const std::vector<std::uint32_t> rotated = stage_chunks(8);
    for (std::uint32_t prefix = 0; prefix <= most_prefix_chunks; ++prefix)
        for (std::uint32_t set = 0; set < 1u << prefix; ++set) {
            const Route route(set | 1u << (prefix + rotated.size() - 1), prefix, rotated);
            // As many prefix chunks as its last stage that is asked for has.
            std::uint32_t used = 0;
            while (set >> used != 0) ++used;
            check(route.prefix == used, "chunks of the prefix that are used");
            check(route.chunks_at.size() == prefix + rotated.size(), "each stage has a number of chunks");
            for (std::uint32_t s = 0; s < prefix; ++s) check(route.chunks_at[s] == s + 1, "of the prefix");
            for (std::size_t s = 0; s < rotated.size(); ++s)
                check(route.chunks_at[prefix + s] == used + rotated[s], "of all coordinates");
        }
}

/// What a plan costs, tile by tile: of 1,000 tiles those with a number below 1,000 * alive[s] outlive stage
/// s.
double simulated_cost(std::uint32_t plan, const std::vector<double>& alive, std::uint32_t prefix_chunks,
                      const std::vector<std::uint32_t>& rotated, double screening_chunks) {
    double cost = 0;
    constexpr int count = 1000;
    for (int t = 0; t < count; ++t) {
        std::uint32_t chunk = 0, prefix_used = 0;
        for (std::uint32_t s = 0; s < prefix_chunks; ++s)
            if ((plan >> s & 1u) != 0) prefix_used = s + 1;
        for (std::uint32_t s = 0; s < alive.size(); ++s) {
            if ((plan >> s & 1u) == 0) continue;
            const std::uint32_t until = s < prefix_chunks ? s + 1 : prefix_used + rotated[s - prefix_chunks];
            for (; chunk < until; ++chunk) cost += 1.0;
            cost += screening_chunks;
            if (t >= std::lround(alive[s] * count)) break;
        }
    }
    return cost / count;
}

void the_cheapest_plan_is() {
    std::mt19937 random(5);
    for (int round = 0; round < 30; ++round) {
        const auto prefix = static_cast<std::uint32_t>(random() % (most_prefix_chunks + 1));
        const auto rotated = stage_chunks(static_cast<std::uint32_t>(1 + random() % 16));
        std::vector<double> alive(prefix + rotated.size());
        // In thousandths, so that tiles are whole; stages leave fewer the later, as bounds tighten, or any.
        for (double& share : alive) share = static_cast<double>(random() % 1001) / 1000.0;
        if (round % 3 != 0) std::sort(alive.rbegin(), alive.rend());
        const double screening = round % 2 == 0 ? 0.8 : 0.0;
        const auto last = static_cast<std::uint32_t>(alive.size() - 1);
        const std::uint32_t plan = cheapest_plan(alive, prefix, rotated, screening);
        check((plan >> last & 1u) != 0 && plan >> last == 1u, "the last stage is there, and none behind it");
        const double cost = simulated_cost(plan, alive, prefix, rotated, screening);
        double least = std::numeric_limits<double>::infinity();
        for (std::uint32_t set = 0; set < 1u << last; ++set)
            least = std::min(least, simulated_cost(set | 1u << last, alive, prefix, rotated, screening));
        check(cost <= least + 1e-9,
              "a plan of " + std::to_string(cost) + " where one costs " + std::to_string(least));
    }
    check(cheapest_plan({0.0}, 0, {1}, 0.8) == 1u, "of one stage");
}

// The bound of a pair -------------------------------------------------------------------------------------

/// The orthonormal Hadamard transform, in the order of operations of operand.cu.
void transform(float* x, std::size_t width) {
    for (std::size_t half = 1; half < width; half *= 2)
        for (std::size_t k = 0; k < width / 2; ++k) {
            const std::size_t i = k / half * 2 * half + k % half;
            const float low = x[i], high = x[i + half];
            x[i] = low + high, x[i + half] = low - high;
        }
    const auto orthonormal = static_cast<float>(1.0 / std::sqrt(static_cast<double>(width)));
    for (std::size_t j = 0; j < width; ++j) x[j] *= orthonormal;
}

/// A row as a device holds it: bytes, filled up with zeros to whole chunks, and its share at each stage.
struct Quantised {
    std::vector<std::int8_t> bytes;
    std::vector<std::int32_t> shares;
};

/// Sums begin anew behind the prefix.
struct StageOfProblem {
    std::size_t begin, end;  // bytes of a row
    double unit, extra;
};

constexpr double device_extra = 1e-6;  // csrc/cuda/rows.h

/// Rows of d coordinates, with a prefix of `prefix` chunks of random directions.
struct Problem {
    std::size_t d, prefix;
    float scale, prefix_scale = 0.0f;
    double prefix_lost = 0.0;
    std::vector<float> projection;  // (64 prefix, d)
    std::vector<StageOfProblem> stages;

    explicit Problem(std::size_t d_, std::size_t prefix_ = 0)
        : d(d_), prefix(prefix_), scale(static_cast<float>(scale_of(d_, 1.0))) {
        const std::size_t p = prefix * chunk_coordinates;
        if (prefix > 0) {
            projection = random_directions(p, d);
            const double norm = std::sqrt(static_cast<double>(chunk_coordinates) / static_cast<double>(d));
            prefix_scale = static_cast<float>(scale_of(chunk_coordinates, norm));
            prefix_lost = fused_similarity::gamma(rotation_roundings) +
                          fused_similarity::gamma(static_cast<double>(d)) * std::sqrt(static_cast<double>(p));
            const double defect = defect_of(projection.data(), p, d),
                         unit = double{prefix_scale} * prefix_scale;
            for (std::size_t s = 0; s < prefix; ++s)
                stages.push_back({0, (s + 1) * chunk_coordinates, unit,
                                  canonical_error_of(d) + device_extra + 2.0 * defect + defect * defect});
        }
        for (const std::uint32_t chunks :
             stage_chunks(static_cast<std::uint32_t>((d + chunk_coordinates - 1) / chunk_coordinates)))
            stages.push_back({p, p + std::size_t{chunks} * chunk_coordinates, double{scale} * scale,
                              canonical_error_of(d) + device_extra});
    }

    static std::vector<float> random_directions(std::size_t p, std::size_t d) {
        std::mt19937 random(43);
        std::normal_distribution<float> normal;
        std::vector<float> values(p * d), directions(p * d);
        for (float& value : values) value = normal(random);
        orthonormalise(values.data(), p, d, directions.data());
        return directions;
    }

    Quantised quantise(const float* row) const {
        double square = 0;  // a canonical one differs by less than `extra` allows for
        for (std::size_t j = 0; j < d; ++j) square += double{row[j]} * row[j];
        square = double{static_cast<float>(square)};
        const bool sure = square >= fragile_square;
        const float factor = sure ? static_cast<float>(1.0 / std::sqrt(square)) : 0.0f;
        std::vector<float> v(d);
        for (std::size_t j = 0; j < d; ++j) v[j] = factor != 0.0f ? row[j] * factor : 0.0f;
        const std::vector<float> signs = rotation_signs(std::max<std::size_t>(d, chunk_coordinates));
        Quantised result;
        result.bytes.assign(stages.back().end, 0);
        const auto set_share = [&](RowSums sums, std::size_t coordinates, bool whole, double unit,
                                   double lost) {
            const double share = share_of(sums, coordinates, whole, lost);
            result.shares.push_back(sure ? in_units(share, unit, passing_share) : passing_share);
        };
        RowSums own{0.0f, 0.0f};
        for (std::size_t chunk = 0; chunk < prefix; ++chunk) {
            const std::size_t begin = chunk * chunk_coordinates;
            float part[chunk_coordinates];
            for (std::size_t j = 0; j < chunk_coordinates; ++j) {
                float dot = 0.0f;
                for (std::size_t k = 0; k < d; ++k)
                    dot = std::fma(v[k], projection[(begin + j) * d + k], dot);
                part[j] = dot * signs[j];
            }
            transform(part, chunk_coordinates);
            for (std::size_t j = 0; j < chunk_coordinates; ++j)
                round(part[j], prefix_scale, result.bytes[begin + j], own);
            set_share(own, begin + chunk_coordinates, false, double{prefix_scale} * prefix_scale,
                      prefix_lost);
        }
        for (std::size_t t = 0; t < transforms_of(d); ++t) {
            for (std::size_t j = 0; j < d; ++j) v[j] *= signs[t * d + j];
            transform(v.data() + transform_begin(d, t), transform_width(d));
        }
        own = {0.0f, 0.0f};
        std::size_t j = 0;
        for (std::size_t s = prefix; s < stages.size(); ++s) {
            const bool whole = s + 1 == stages.size();
            const std::size_t end = whole ? d : stages[s].end - stages[s].begin;
            for (; j < end; ++j) round(v[j], scale, result.bytes[stages[s].begin + j], own);
            set_share(own, end, whole, stages[s].unit, fused_similarity::gamma(rotation_roundings));
        }
        return result;
    }

    static void round(float value, float scale, std::int8_t& byte, RowSums& own) {
        const float rounded = std::fmin(std::fmax(std::rint(value / scale), -127.0f), 127.0f);
        const float error = std::fma(-scale, rounded, value);
        own.squares += value * value, own.errors += error * error;
        byte = static_cast<std::int8_t>(rounded);
    }
};

/// Checks that no stage rejects a pair at the limit that is its exact cosine or just above; returns how many
/// pairs the last stage rejects at `limit`.
std::size_t rejected_at(const Problem& problem, const std::vector<float>& rows, std::size_t n, float limit,
                        const std::string& what) {
    const std::size_t d = problem.d;
    std::vector<Quantised> quantised;
    std::vector<long double> units(n * d);
    for (std::size_t i = 0; i < n; ++i) {
        quantised.push_back(problem.quantise(rows.data() + i * d));
        long double square = 0;
        for (std::size_t j = 0; j < d; ++j)
            square += static_cast<long double>(rows[i * d + j]) * rows[i * d + j];
        for (std::size_t j = 0; j < d; ++j) units[i * d + j] = rows[i * d + j] / std::sqrt(square);
    }
    std::size_t violations = 0, rejected = 0;
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t k = 0; k <= i; ++k) {
            const long double exact =
                std::inner_product(units.begin() + static_cast<std::ptrdiff_t>(i * d),
                                   units.begin() + static_cast<std::ptrdiff_t>((i + 1) * d),
                                   units.begin() + static_cast<std::ptrdiff_t>(k * d), 0.0L);
            // The highest limit that the exact cosine reaches, and one that a canonical one may by rounding.
            const float reached[] = {std::min(static_cast<float>(exact), 1.0f),
                                     std::min(std::nextafter(static_cast<float>(exact), 2.0f), 1.0f)};
            std::int32_t sum = 0;  // int32 as on the device: the sanitizer watches it
            std::size_t j = 0;
            for (std::size_t s = 0; s < problem.stages.size(); ++s) {
                const StageOfProblem& stage = problem.stages[s];
                if (s == problem.prefix) sum = 0, j = stage.begin;
                for (; j < stage.end; ++j) sum += quantised[i].bytes[j] * quantised[k].bytes[j];
                const auto passes = [&](float at) {  // as the device adds them
                    const std::int32_t less =
                        least_sum_of(at, stage.extra, stage.unit, most_limit) - quantised[i].shares[s];
                    return sum + quantised[k].shares[s] - less >= 0;
                };
                for (const float at : reached) violations += !passes(at);
                if (s + 1 == problem.stages.size()) rejected += !passes(limit);
            }
        }
    check(violations == 0, std::to_string(violations) + " pairs rejected that reach a limit, " + what);
    return rejected;
}

void no_pair_that_reaches_a_limit_is_rejected() {
    for (const auto& [d, prefix] : std::vector<std::pair<std::size_t, std::size_t>>{{1, 0},
                                                                                    {2, 0},
                                                                                    {3, 0},
                                                                                    {15, 0},
                                                                                    {16, 0},
                                                                                    {17, 0},
                                                                                    {63, 0},
                                                                                    {64, 0},
                                                                                    {65, 0},
                                                                                    {100, 0},
                                                                                    {64, 1},
                                                                                    {100, 1},
                                                                                    {128, 0},
                                                                                    {128, 2},
                                                                                    {200, 0},
                                                                                    {384, 1},
                                                                                    {512, 0},
                                                                                    {512, 2},
                                                                                    {769, 0}}) {
        const Problem problem(d, prefix);
        const std::size_t n = d > 200 ? 25 : 46;
        const std::string what = "d " + std::to_string(d) + ", prefix " + std::to_string(prefix);
        // Outliers, constants, single coordinates, near copies, negated rows, tiny and huge ones.
        for (const Element element : {Element::float32, Element::float16})
            rejected_at(problem, hard_rows(n, d, element, 40), n, 0.9f, what + ", hard rows");
        std::mt19937 random(41);
        std::normal_distribution<float> normal;
        std::vector<float> rows(n * d);
        for (float& value : rows) value = normal(random);
        const std::size_t far = rejected_at(problem, rows, n, 0.95f, what + ", random");
        // And it does reject: random rows of many coordinates are far from each other.
        if (d >= 64) check(far == n * (n - 1) / 2, "random rows are told apart, " + what);
        // The rotation's own worst: rows that it turns into one coordinate, or into all of the same size.
        const std::vector<float> signs = rotation_signs(std::max<std::size_t>(d, chunk_coordinates));
        for (std::size_t i = 0; i < n; ++i) {
            float* row = rows.data() + i * d;
            std::fill_n(row, d, 0.0f);
            if (i % 2 == 0) {
                row[i % d] = 1.0f;
                for (std::size_t t = transforms_of(d); t-- > 0;) {
                    transform(row + transform_begin(d, t), transform_width(d));
                    for (std::size_t j = 0; j < d; ++j) row[j] *= signs[t * d + j];
                }
            } else {
                for (std::size_t j = 0; j < d; ++j)
                    row[j] = signs[j] * (i % 4 == 1 ? 1.0f : 1.0f + normal(random) * 1e-3f);
            }
            const float size = std::ldexp(1.0f, static_cast<int>(random() % 80) - 40);
            for (std::size_t j = 0; j < d; ++j) row[j] *= size;
        }
        rejected_at(problem, rows, n, 0.9f, what + ", of the rotation");
        // Rows that lie in the prefix's directions, or nearly: nothing is left for the rest to add.
        for (std::size_t i = 0; prefix > 0 && i < n; ++i)
            for (std::size_t j = 0; j < d; ++j) {
                const float* directions = problem.projection.data();
                rows[i * d + j] = directions[i % 3 * d + j] + directions[i % 5 * d + j] * 0.1f +
                                  (i % 2 == 0 ? 0.0f : normal(random) * 1e-3f);
            }
        rejected_at(problem, rows, n, 0.9f, what + ", of the prefix");
        // Shorter than what a canonical sum is sure of: no pair is rejected, whatever the limit.
        for (std::size_t i = 0; i < n; ++i)
            for (std::size_t j = 0; j < d; ++j)
                rows[i * d + j] = normal(random) * 1e-18f / static_cast<float>(d);
        check(rejected_at(problem, rows, n, 1.0f, what + ", fragile") == 0, "fragile rows pass, " + what);
    }
}

void no_sum_leaves_int32() {
    constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
    const std::int64_t sum = 127 * 127 * static_cast<std::int64_t>(most_coordinates);
    const auto limit = static_cast<std::int64_t>(most_limit);
    for (const int sign : {-1, 1})
        for (const std::int64_t share_a : {-passing_share, 0, passing_share})
            for (const std::int64_t share_b : {-passing_share, 0, passing_share})
                for (const std::int64_t at : {-limit, limit}) {
                    const std::int64_t parts[] = {sign * sum, share_b, -(at - share_a)};
                    std::int64_t so_far = 0;
                    for (const std::int64_t part : parts) {
                        check(std::llabs(part) <= most, "a part is int32");
                        so_far += part;
                        check(std::llabs(so_far) <= most, "and every partial sum");
                    }
                }
    check(static_cast<std::int64_t>(unreachable_limit) + passing_share <= most,
          "nor of an unreachable limit");
    // A filled-up row reaches nothing, and a passing share reaches any limit.
    check(sum - passing_share + passing_share < unreachable_limit, "rows beyond the last are no pair");
    for (const std::size_t d : {std::size_t{1}, std::size_t{64}, std::size_t{1024}, most_coordinates}) {
        const Problem problem(d);
        // A pass must not depend on the clipping of a limit: a cosine of 1 is less than most_limit in units.
        check(1.0 / problem.stages[0].unit < most_limit,
              "limits up to 1 are not clipped, d " + std::to_string(d));
        const float largest = std::numeric_limits<float>::max();
        for (const float at : {-largest, -static_cast<float>(HUGE_VAL), -1.0f, 0.0f, 1.0f, largest,
                               static_cast<float>(HUGE_VAL)}) {
            const std::int32_t least =
                least_sum_of(at, problem.stages[0].extra, problem.stages[0].unit, most_limit);
            check(std::abs(static_cast<double>(least)) <= most_limit, "a limit within its range");
            if (at <= 1.0f) check(passing_share >= least, "a passing share reaches limits up to 1");
        }
        check(in_units(0.0, problem.stages[0].unit, passing_share) == 0, "no share");
        check(in_units(static_cast<double>(largest), problem.stages[0].unit, passing_share) == passing_share,
              "the largest");
        check(in_units(std::numeric_limits<double>::infinity(), problem.stages[0].unit, passing_share) ==
                  passing_share,
              "an infinite share");
        check(in_units(std::numeric_limits<double>::quiet_NaN(), problem.stages[0].unit, passing_share) ==
                  passing_share,
              "no number");
    }
    // The longest rows that are screened, of the most extreme bytes: the sanitizer sees each addition.
    const Problem longest(most_coordinates);
    std::vector<float> rows(2 * most_coordinates, 1.0f);
    for (std::size_t j = 0; j < most_coordinates; ++j) rows[most_coordinates + j] = j % 2 == 0 ? -1.0f : 1.5f;
    rejected_at(longest, rows, 2, 0.9f, "the longest rows");
    std::int32_t extreme = 0;
    for (std::size_t j = 0; j < most_coordinates; ++j) extreme += 127 * 127;
    check(
        extreme == sum && extreme + passing_share + passing_share + static_cast<std::int32_t>(most_limit) > 0,
        "the largest sum, shares and limit");
}

const Test tests[] = {
    {"cuda: every tile is met once", every_tile_is_met_once},
    {"cuda: places in a chunk", a_chunk_has_a_place_for_every_segment_and_no_bank_waits},
    {"cuda: stages and routes", stages_and_routes},
    {"cuda: the cheapest plan", the_cheapest_plan_is},
    {"cuda: no pair that reaches a limit is rejected", no_pair_that_reaches_a_limit_is_rejected},
    {"cuda: no sum leaves int32", no_sum_leaves_int32}};

}  // namespace
}  // namespace pycurate::tests
