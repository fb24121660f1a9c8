#include "kernels/confident/confident.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "common/half.h"

namespace pycurate::tests {
namespace {

using confident::Element;

float number(Float16 x) { return widen(x); }
float number(float x) { return x; }
double number(double x) { return x; }

template <class Stored>
Stored stored(double x) {
    if constexpr (std::is_same_v<Stored, Float16>)
        return narrow_to_float16(static_cast<float>(x));
    else
        return static_cast<Stored>(x);
}

/// n rows of k in a buffer not one byte longer, with equal largest entries and zeros.
template <class Stored>
void passes(Element element) {
    for (const std::size_t k : {1u, 2u, 7u, 8u, 15u, 16u, 17u, 31u, 33u, 130u}) {
        constexpr std::size_t n = 21;
        std::mt19937_64 engine(k);
        const auto p = exact_buffer<Stored>(n * k);
        const auto labels = exact_buffer<std::int64_t>(n);
        const auto bounds = exact_buffer<double>(k);
        for (std::size_t i = 0; i < n * k; ++i)
            p[i] = stored<Stored>(static_cast<double>(engine() % 9) / 8.0 / static_cast<double>(k));
        for (std::size_t i = 0; i < n; ++i) labels[i] = static_cast<std::int64_t>(engine() % (k + 1)) - 1;
        for (std::size_t j = 0; j < k; ++j) bounds[j] = static_cast<double>(number(p[engine() % (n * k)]));
        const confident::Rows rows{p.get(), static_cast<std::ptrdiff_t>(k * sizeof(Stored)), n, k,
                                   labels.get()};
        const auto self = exact_buffer<double>(n), other = exact_buffer<double>(n),
                   sums = exact_buffer<double>(n), least = exact_buffer<double>(n),
                   entropy = exact_buffer<double>(n), own = exact_buffer<double>(n);
        const auto predicted = exact_buffer<std::int32_t>(n), guess = exact_buffer<std::int32_t>(n);
        check(confident::summarise(
                  element, rows, bounds.get(),
                  {self.get(), other.get(), predicted.get(), guess.get(), sums.get(), least.get()}, 2, {}),
              "summarise ended");
        check(confident::entropies(element, rows, entropy.get(), 2, {}), "entropies ended");
        check(confident::self_probabilities(element, rows, own.get(), 2, {}), "self_probabilities ended");
        for (std::size_t i = 0; i < n; ++i) {
            const std::string where = "row " + std::to_string(i) + " of " + std::to_string(k) + " classes";
            double most = -1, others = -std::numeric_limits<double>::infinity(), h = 0, smallest = 2, sum = 0;
            std::int32_t first = 0, confident = -1;
            int count = 0;
            for (std::size_t j = 0; j < k; ++j) {
                const double x = static_cast<double>(number(p[i * k + j]));
                if (x > most) first = static_cast<std::int32_t>(j), most = x;
                if (static_cast<std::int64_t>(j) != labels[i]) others = std::max(others, x);
                if (x >= bounds[j] && ++count == 1) confident = static_cast<std::int32_t>(j);
                if (x > 0) h -= x * std::log(x);
                smallest = std::min(smallest, x);
                sum += x;
            }
            check(predicted[i] == first, where + ": predicted");
            check(guess[i] == (count > 1 ? first : confident), where + ": guess");
            check(other[i] == others && least[i] == smallest, where + ": extremes");
            check(std::fabs(entropy[i] - h) < 1e-12 && std::fabs(sums[i] - sum) < 1e-4, where + ": sums");
            const bool none = labels[i] < 0;
            const double expected =
                none ? 0 : static_cast<double>(number(p[i * k + static_cast<std::size_t>(labels[i])]));
            check(
                none ? std::isnan(self[i]) && std::isnan(own[i]) : self[i] == expected && own[i] == expected,
                where + ": self");
        }
    }
}

void float16_passes() { passes<Float16>(Element::float16); }
void float32_passes() { passes<float>(Element::float32); }
void float64_passes() { passes<double>(Element::float64); }

void candidates_are_the_largest_margins() {
    constexpr std::size_t n = 3000, k = 3;
    std::mt19937_64 engine(1);
    const auto p = exact_buffer<float>(n * k);
    const auto labels = exact_buffer<std::int64_t>(n);
    for (std::size_t i = 0; i < n * k; ++i) p[i] = static_cast<float>(engine() % 50) / 50;
    for (std::size_t i = 0; i < n; ++i) labels[i] = static_cast<std::int64_t>(engine() % 4) - 1;
    confident::MarginCandidates candidates({0, 1, 1, 3}, {1, 0, 2}, {100, 5000, 40});
    for (std::size_t begin = 0; begin < n; begin += 700) {
        const confident::Rows rows{p.get() + begin * k, k * sizeof(float),
                                   std::min<std::size_t>(700, n - begin), k, labels.get() + begin};
        check(candidates.add(Element::float32, rows, static_cast<std::int64_t>(begin), 3, {}), "add ended");
    }
    std::vector<std::int64_t> found = candidates.rows(), expected;
    const auto best = [&](std::size_t given, std::size_t towards, std::size_t wanted) {
        std::vector<std::pair<float, std::int64_t>> all;
        for (std::size_t i = 0; i < n; ++i)
            if (labels[i] == static_cast<std::int64_t>(given)) {
                const float own = p[i * k + given];
                all.emplace_back(given == towards ? own : own - p[i * k + towards],
                                 static_cast<std::int64_t>(i));
            }
        // Of float32 in fiftieths the order of rounded differences need not be that of exact ones.
        std::sort(all.begin(), all.end(), [&](const auto& a, const auto& b) {
            const auto margin = [&](std::int64_t row) {
                const float* of = p.get() + static_cast<std::size_t>(row) * k;
                return given == towards ? -static_cast<double>(of[given])
                                        : static_cast<double>(of[towards]) - static_cast<double>(of[given]);
            };
            const double x = margin(a.second), y = margin(b.second);
            return x != y ? x > y : a.second < b.second;
        });
        for (std::size_t i = 0; i < std::min(wanted, all.size()); ++i) expected.push_back(all[i].second);
    };
    best(0, 1, 100);
    best(2, 0, 5000);
    best(2, 2, 40);
    std::sort(found.begin(), found.end());
    std::sort(expected.begin(), expected.end());
    check(found == expected, "rows of largest margin");
}

const Test tests[] = {
    {"confident: float16 passes", float16_passes},
    {"confident: float32 passes", float32_passes},
    {"confident: float64 passes", float64_passes},
    {"confident: candidates", candidates_are_the_largest_margins},
};

}  // namespace
}  // namespace pycurate::tests
