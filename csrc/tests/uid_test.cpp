#include "kernels/uid/uid.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "check.h"

namespace pycurate::uid {
// Here argument-dependent lookup of the standard algorithms finds them.

static bool operator<(Uid x, Uid y) { return x.high != y.high ? x.high < y.high : x.low < y.low; }
static bool operator==(Uid x, Uid y) { return x.high == y.high && x.low == y.low; }

}  // namespace pycurate::uid

namespace pycurate::tests {
namespace {

using uid::Algebra;
using uid::Uid;

const std::size_t sizes[] = {0, 1, 2, 3, 5, 8, 31, 32, 33, 1000, 5003};

/// `bits` random bits in each word: few make repeats.
std::unique_ptr<Uid[]> random_uids(std::size_t n, unsigned bits, unsigned seed) {
    std::mt19937_64 engine(seed);
    auto uids = exact_buffer<Uid>(n);
    for (std::size_t i = 0; i < n; ++i) uids[i] = {engine() >> (64 - bits), engine() >> (64 - bits)};
    return uids;
}

void hex_goes_in_and_out() {
    const auto& kernels = uid::active_kernels();
    for (const std::size_t n : sizes) {
        const auto uids = random_uids(n, 64, 1);
        const auto text = exact_buffer<char>(32 * n);
        kernels.format_hex(uids.get(), n, text.get());
        const auto back = exact_buffer<Uid>(n);
        check(kernels.parse_hex(text.get(), n, back.get()) == n, "every row is hex");
        check(std::equal(uids.get(), uids.get() + n, back.get()), "the uids that went in");
        if (n == 0) continue;
        text[32 * n - 1] = 'g';
        check(kernels.parse_hex(text.get(), n, back.get()) == n - 1, "the bad row is found");
    }
}

void sort_is_stable() {
    for (const std::size_t n : sizes)
        for (const unsigned bits : {1u, 3u, 20u, 64u}) {
            const auto uids = random_uids(n, bits, 2);
            std::vector<std::uint32_t> order(n);
            for (std::size_t i = 0; i < n; ++i) order[i] = static_cast<std::uint32_t>(i);
            std::stable_sort(order.begin(), order.end(), [&](auto i, auto j) { return uids[i] < uids[j]; });
            const auto keys = random_uids(n, bits, 2);
            const auto payload = exact_buffer<std::uint32_t>(n);
            for (std::size_t i = 0; i < n; ++i) payload[i] = static_cast<std::uint32_t>(i);
            check(uid::sort(keys.get(), payload.get(), n, 2, {}), "finished");
            check(std::equal(order.begin(), order.end(), payload.get()), "order of std::stable_sort");
            check(uid::first_unsorted(keys.get(), n, false) == n, "sorted");
        }
}

void a_large_sort_on_threads() {
    const std::size_t n = std::size_t{3} << 20;
    const auto keys = random_uids(n, 64, 3);
    check(uid::sort(keys.get(), n, 3, {}), "finished");
    check(uid::first_unsorted(keys.get(), n, false) == n, "sorted");
}

void a_sort_can_be_stopped() {
    const auto keys = random_uids(1000, 64, 3);
    check(!uid::sort(keys.get(), 1000, 1, [] { return true; }), "said that it was stopped");
}

void merges_equal_the_counts() {
    for (const std::size_t n : sizes) {
        const std::size_t m = n / 2 + 3;
        const auto a = random_uids(n, 4, 4), b = random_uids(m, 4, 5);
        std::sort(a.get(), a.get() + n, [](Uid x, Uid y) { return x < y; });
        std::sort(b.get(), b.get() + m, [](Uid x, Uid y) { return x < y; });
        std::vector<Uid> every;
        for (std::uint64_t high = 0; high < 16; ++high)
            for (std::uint64_t low = 0; low < 16; ++low) every.push_back({high, low});
        for (const auto op :
             {Algebra::intersect, Algebra::unite, Algebra::minus, Algebra::without, Algebra::add}) {
            std::vector<Uid> expected, found;
            for (const Uid key : every) {
                const auto c = std::count(a.get(), a.get() + n, key),
                           d = std::count(b.get(), b.get() + m, key);
                std::ptrdiff_t copies = c + d;
                if (op == Algebra::intersect) copies = std::min(c, d);
                if (op == Algebra::unite) copies = std::max(c, d);
                if (op == Algebra::minus) copies = std::max<std::ptrdiff_t>(c - d, 0);
                if (op == Algebra::without) copies = d == 0 ? c : 0;
                expected.insert(expected.end(), static_cast<std::size_t>(copies), key);
            }
            uid::Progress at{0, 0, 0};
            while (at.a < n || at.b < m) {
                const auto out = exact_buffer<Uid>(7);
                at = uid::merge(op, a.get(), n, b.get(), m, at, out.get(), 7, 11);
                found.insert(found.end(), out.get(), out.get() + at.out);
            }
            check(found == expected, "merge " + std::to_string(static_cast<int>(op)));
        }
    }
}

void find_and_runs() {
    for (const std::size_t n : sizes) {
        const auto sorted = random_uids(n, 3, 6), queries = random_uids(40, 3, 7);
        const auto first = [](Uid x, Uid y) { return x < y; };
        std::sort(sorted.get(), sorted.get() + n, first);
        std::sort(queries.get(), queries.get() + 40, first);
        const auto positions = exact_buffer<std::int64_t>(40);
        uid::find(sorted.get(), n, queries.get(), 40, positions.get());
        for (std::size_t i = 0; i < 40; ++i) {
            const auto place =
                std::lower_bound(sorted.get(), sorted.get() + n, queries[i], first) - sorted.get();
            const bool there = place < static_cast<std::ptrdiff_t>(n) &&
                               sorted[static_cast<std::size_t>(place)] == queries[i];
            check(positions[i] == (there ? place : -1), "the first place, or -1");
        }
        const std::size_t distinct = uid::count_distinct(sorted.get(), n);
        const auto keys = exact_buffer<Uid>(distinct);
        const auto counts = exact_buffer<std::int64_t>(distinct);
        uid::run_lengths(sorted.get(), n, keys.get(), counts.get());
        check(uid::first_unsorted(keys.get(), distinct, true) == distinct, "each key once");
        for (std::size_t i = 0; i < distinct; ++i)
            check(counts[i] == std::count(sorted.get(), sorted.get() + n, keys[i]), "its count");
    }
}

const Test tests[] = {
    {"uid: hex goes in and out", hex_goes_in_and_out},
    {"uid: sort is stable", sort_is_stable},
    {"uid: a large sort on several threads", a_large_sort_on_threads},
    {"uid: a sort can be stopped", a_sort_can_be_stopped},
    {"uid: merges equal the counts", merges_equal_the_counts},
    {"uid: find and runs", find_and_runs},
};

}  // namespace
}  // namespace pycurate::tests
