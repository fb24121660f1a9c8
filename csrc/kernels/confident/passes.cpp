// What is the same on every instruction set: threads over blocks of rows, class sums, candidates by margin.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <new>
#include <numeric>

#include "common/float_environment.h"
#include "common/half.h"
#include "common/thread_pool.h"
#include "kernels/confident/confident.h"

namespace pycurate::confident {
namespace {

constexpr std::size_t task_bytes = std::size_t{1} << 18;
constexpr std::size_t kept_at_least = 32;  // candidates before a pair's list is first cut

std::size_t size_of(Element element) noexcept {
    return element == Element::float16 ? 2 : element == Element::float32 ? 4 : 8;
}

double probability(Float16 x) noexcept { return static_cast<double>(widen(x)); }
double probability(float x) noexcept { return static_cast<double>(x); }
double probability(double x) noexcept { return x; }

template <class Stored>
const Stored* row_of(const Rows& rows, std::size_t i) noexcept {
    return reinterpret_cast<const Stored*>(static_cast<const char*>(rows.data) +
                                           static_cast<std::ptrdiff_t>(i) * rows.stride);
}

Rows part(const Rows& rows, std::size_t begin, std::size_t end) noexcept {
    return {row_of<char>(rows, begin), rows.stride, end - begin, rows.k,
            rows.labels == nullptr ? nullptr : rows.labels + begin};
}

template <class Call>
bool over_rows(Element element, const Rows& rows, std::size_t threads, const Poll& poll, const Call& call) {
    const std::size_t step = std::max<std::size_t>(1, task_bytes / (rows.k * size_of(element)));
    return parallel_for((rows.n + step - 1) / step, threads,
                        [&](std::size_t task) {
                            const DefaultFloatEnvironment environment;
                            call(task * step, std::min(rows.n, (task + 1) * step));
                        },
                        poll);
}

template <class Stored>
void read_self(const Rows& rows, std::size_t begin, std::size_t end, double* out) noexcept {
    for (std::size_t i = begin; i < end; ++i) {
        const std::int64_t label = rows.labels[i];
        out[i] = label < 0 ? std::numeric_limits<double>::quiet_NaN()
                           : probability(row_of<Stored>(rows, i)[label]);
    }
}

}  // namespace

float not_below(double bound) noexcept {
    const float near = static_cast<float>(bound);
    return static_cast<double>(near) < bound ? std::nextafter(near, std::numeric_limits<float>::infinity())
                                             : near;
}

bool summarise(Element element, const Rows& rows, const double* bounds, const Summary& out,
               std::size_t threads, const Poll& poll) {
    const Kernels& kernels = active_kernels();
    std::vector<float> narrow;
    if (element != Element::float64) {
        narrow.resize(rows.k);
        std::transform(bounds, bounds + rows.k, narrow.begin(), not_below);
    }
    return over_rows(element, rows, threads, poll, [&](std::size_t begin, std::size_t end) {
        const Rows some = part(rows, begin, end);
        const Summary there{out.self + begin,  out.other + begin, out.predicted + begin,
                            out.guess + begin, out.sums + begin,  out.least + begin};
        switch (element) {
            case Element::float16: kernels.summarise_f16(some, narrow.data(), there); break;
            case Element::float32: kernels.summarise_f32(some, narrow.data(), there); break;
            case Element::float64: kernels.summarise_f64(some, bounds, there); break;
        }
    });
}

bool entropies(Element element, const Rows& rows, double* out, std::size_t threads, const Poll& poll) {
    const Kernels& kernels = active_kernels();
    return over_rows(element, rows, threads, poll, [&](std::size_t begin, std::size_t end) {
        const Rows some = part(rows, begin, end);
        switch (element) {
            case Element::float16: kernels.entropies_f16(some, out + begin); break;
            case Element::float32: kernels.entropies_f32(some, out + begin); break;
            case Element::float64: kernels.entropies_f64(some, out + begin); break;
        }
    });
}

bool self_probabilities(Element element, const Rows& rows, double* out, std::size_t threads,
                        const Poll& poll) {
    return over_rows(element, rows, threads, poll, [&](std::size_t begin, std::size_t end) {
        switch (element) {
            case Element::float16: read_self<Float16>(rows, begin, end, out); break;
            case Element::float32: read_self<float>(rows, begin, end, out); break;
            case Element::float64: read_self<double>(rows, begin, end, out); break;
        }
    });
}

void add_class_sums(const double* self, const std::int64_t* labels, std::size_t n, double* sums,
                    double* rests, std::int64_t* counts) noexcept {
    const DefaultFloatEnvironment environment;
    for (std::size_t i = 0; i < n; ++i) {
        const std::int64_t y = labels[i];
        if (y < 0) continue;
        const double old = sums[y], p = self[i], sum = old + p;
        rests[y] += std::fabs(old) >= std::fabs(p) ? (old - sum) + p : (p - sum) + old;
        sums[y] = sum;
        ++counts[y];
    }
}

MarginCandidates::MarginCandidates(std::vector<std::int64_t> offsets, std::vector<std::int32_t> columns,
                                   std::vector<std::int64_t> wanted)
    : offsets_(std::move(offsets)),
      columns_(std::move(columns)),
      wanted_(std::move(wanted)),
      pairs_(columns_.size()) {}

void MarginCandidates::shrink(std::vector<Candidate>& best, std::size_t wanted) {
    if (best.size() <= wanted) return;
    std::nth_element(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(wanted) - 1, best.end());
    best.resize(wanted);
}

template <class Probability>
void MarginCandidates::add_class(const Rows& rows, std::int64_t first, const std::uint32_t* begin,
                                 const std::uint32_t* end) {
    const std::int64_t k = rows.labels[*begin];
    const auto from = static_cast<std::size_t>(offsets_[static_cast<std::size_t>(k)]),
               to = static_cast<std::size_t>(offsets_[static_cast<std::size_t>(k) + 1]);
    for (const std::uint32_t* at = begin; at != end; ++at) {
        const Probability* row = row_of<Probability>(rows, *at);
        const double own = probability(row[k]);
        for (std::size_t p = from; p < to; ++p) {
            const std::int32_t j = columns_[p];
            const Candidate found{j == k ? 0.0 - own : probability(row[j]) - own, first + *at};
            Pair& pair = pairs_[p];
            if (std::isnan(found.margin) || (pair.full && pair.last < found)) continue;
            pair.best.push_back(found);
            const auto wanted = static_cast<std::size_t>(wanted_[p]);
            if (pair.best.size() < std::max(2 * wanted, kept_at_least)) continue;
            shrink(pair.best, wanted);
            pair.last = pair.best.back();
            pair.full = true;
        }
    }
}

/// Rows whose class has pairs, by class and then rising.
std::vector<std::uint32_t> MarginCandidates::by_class(const Rows& rows) const {
    const auto takes_part = [&](std::size_t i) {
        const std::int64_t label = rows.labels[i];
        return label >= 0 &&
               offsets_[static_cast<std::size_t>(label)] < offsets_[static_cast<std::size_t>(label) + 1];
    };
    const std::size_t classes = offsets_.size() - 1;
    std::vector<std::uint32_t> order;
    if (rows.n < classes) {  // of many classes, blocks have few rows: nothing may cost a step for each class
        for (std::size_t i = 0; i < rows.n; ++i)
            if (takes_part(i)) order.push_back(static_cast<std::uint32_t>(i));
        std::sort(order.begin(), order.end(), [&](std::uint32_t i, std::uint32_t j) {
            return rows.labels[i] != rows.labels[j] ? rows.labels[i] < rows.labels[j] : i < j;
        });
        return order;
    }
    std::vector<std::uint32_t> places(classes + 1, 0);
    for (std::size_t i = 0; i < rows.n; ++i)
        if (takes_part(i)) ++places[static_cast<std::size_t>(rows.labels[i]) + 1];
    std::partial_sum(places.begin(), places.end(), places.begin());
    order.resize(places.back());
    for (std::size_t i = 0; i < rows.n; ++i)
        if (takes_part(i))
            order[places[static_cast<std::size_t>(rows.labels[i])]++] = static_cast<std::uint32_t>(i);
    return order;
}

bool MarginCandidates::add(Element element, const Rows& rows, std::int64_t first, std::size_t threads,
                           const Poll& poll) {
    const std::vector<std::uint32_t> order = by_class(rows);
    std::vector<std::size_t> ends;  // of each class's rows in the order
    for (std::size_t i = 0; i < order.size(); ++i)
        if (i + 1 == order.size() || rows.labels[order[i]] != rows.labels[order[i + 1]])
            ends.push_back(i + 1);
    std::atomic<bool> without_memory{false};
    const bool finished = parallel_for(
        ends.size(), threads,
        [&](std::size_t run) {
            const std::uint32_t *begin = order.data() + (run == 0 ? 0 : ends[run - 1]),
                                *end = order.data() + ends[run];
            const DefaultFloatEnvironment environment;
            try {
                switch (element) {
                    case Element::float16: add_class<Float16>(rows, first, begin, end); break;
                    case Element::float32: add_class<float>(rows, first, begin, end); break;
                    case Element::float64: add_class<double>(rows, first, begin, end); break;
                }
            } catch (const std::bad_alloc&) {
                without_memory = true;
            }
        },
        poll);
    if (without_memory) throw std::bad_alloc();
    return finished;
}

std::vector<std::int64_t> MarginCandidates::rows() const {
    std::vector<std::int64_t> found;
    for (std::size_t p = 0; p < pairs_.size(); ++p) {
        auto best = pairs_[p].best;
        shrink(best, static_cast<std::size_t>(wanted_[p]));
        for (const Candidate& candidate : best) found.push_back(candidate.row);
    }
    return found;
}

}  // namespace pycurate::confident
