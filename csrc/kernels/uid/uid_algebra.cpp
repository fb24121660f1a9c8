#include <algorithm>

#include "kernels/uid/uid.h"

namespace pycurate::uid {
namespace {

bool less(Uid x, Uid y) noexcept {
    // Bitwise, not short-circuit: which word decides is random to the branch predictor.
    return (x.high < y.high) | ((x.high == y.high) & (x.low < y.low));
}

bool equal(Uid x, Uid y) noexcept { return (x.high == y.high) & (x.low == y.low); }

template <class Offset>
std::size_t first_other_length(const Offset* offsets, std::size_t n) noexcept {
    for (std::size_t i = 0; i < n; ++i)
        if (static_cast<std::uint64_t>(offsets[i + 1]) - static_cast<std::uint64_t>(offsets[i]) != 32)
            return i;
    return n;
}

/// One step of the merge looks at a[i] and b[j] and takes one, the other or, where they are equal, both.
/// Minimum, maximum, difference and sum of counts all come out of such steps, so no count is kept. No branch
/// depends on the comparison: on random uids it would be mispredicted every other time.
template <Algebra op>
Progress merge_steps(const Uid* a, std::size_t na, const Uid* b, std::size_t nb, Progress from, Uid* out,
                     std::size_t capacity, std::size_t steps) noexcept {
    constexpr bool keeps_a = op != Algebra::intersect;                       // where b has nothing left
    constexpr bool keeps_b = op == Algebra::unite || op == Algebra::add;     // where a has nothing left
    constexpr bool keeps_same = keeps_b || op == Algebra::intersect;         // one of two equal uids
    constexpr bool pairs_up = op != Algebra::add && op != Algebra::without;  // an equal uid uses up one of b
    std::size_t i = from.a, j = from.b, k = 0;
    for (; i < na && j < nb && k < capacity && steps > 0; --steps) {
        const Uid x = a[i], y = b[j];
        const bool a_first = less(x, y), b_first = less(y, x);
        out[k] = keeps_b && b_first ? y : x;
        k += (keeps_a && a_first) | (keeps_b && b_first) | (keeps_same && !a_first && !b_first);
        i += !b_first;
        j += pairs_up ? !a_first : b_first;
    }
    if (j == nb && i < na) {
        const std::size_t rest = keeps_a ? std::min({na - i, capacity - k, steps}) : na - i;
        if (keeps_a) std::copy_n(a + i, rest, out + k), k += rest;
        i += rest;
    } else if (i == na && j < nb) {
        const std::size_t rest = keeps_b ? std::min({nb - j, capacity - k, steps}) : nb - j;
        if (keeps_b) std::copy_n(b + j, rest, out + k), k += rest;
        j += rest;
    }
    return {i, j, k};
}

/// First place in sorted (n,) at or after `begin` that is not less than `key`: doubling strides, then
/// bisection.
std::size_t gallop(const Uid* sorted, std::size_t n, std::size_t begin, Uid key) noexcept {
    std::size_t stride = 1, low = begin;
    while (low + stride <= n && less(sorted[low + stride - 1], key)) {
        low += stride;
        stride *= 2;
    }
    std::size_t count = std::min(stride - 1, n - low);
    while (count > 0) {
        const std::size_t half = (count + 1) / 2;
        if (less(sorted[low + half - 1], key))
            low += half, count -= half;
        else
            count = half - 1;
    }
    return low;
}

}  // namespace

std::size_t first_not_32(const std::int32_t* offsets, std::size_t n) noexcept {
    return first_other_length(offsets, n);
}

std::size_t first_not_32(const std::int64_t* offsets, std::size_t n) noexcept {
    return first_other_length(offsets, n);
}

std::size_t first_unsorted(const Uid* uids, std::size_t n, bool strict) noexcept {
    if (strict) {
        for (std::size_t i = 1; i < n; ++i)
            if (!less(uids[i - 1], uids[i])) return i;
    } else {
        for (std::size_t i = 1; i < n; ++i)
            if (less(uids[i], uids[i - 1])) return i;
    }
    return n;
}

Progress merge(Algebra op, const Uid* a, std::size_t na, const Uid* b, std::size_t nb, Progress from,
               Uid* out, std::size_t capacity, std::size_t steps) noexcept {
    const auto run = [&]<Algebra which>() {
        return merge_steps<which>(a, na, b, nb, from, out, capacity, steps);
    };
    switch (op) {
        case Algebra::intersect: return run.operator()<Algebra::intersect>();
        case Algebra::unite: return run.operator()<Algebra::unite>();
        case Algebra::minus: return run.operator()<Algebra::minus>();
        case Algebra::without: return run.operator()<Algebra::without>();
        case Algebra::add: break;
    }
    return run.operator()<Algebra::add>();
}

void find(const Uid* sorted, std::size_t n, const Uid* queries, std::size_t m,
          std::int64_t* positions) noexcept {
    std::size_t place = 0;
    for (std::size_t i = 0; i < m; ++i) {
        place = gallop(sorted, n, place, queries[i]);
        const bool found = place < n && equal(sorted[place], queries[i]);
        positions[i] = found ? static_cast<std::int64_t>(place) : -1;
    }
}

std::size_t count_distinct(const Uid* sorted, std::size_t n) noexcept {
    std::size_t distinct = n > 0;
    for (std::size_t i = 1; i < n; ++i) distinct += !equal(sorted[i], sorted[i - 1]);
    return distinct;
}

void run_lengths(const Uid* sorted, std::size_t n, Uid* keys, std::int64_t* counts) noexcept {
    for (std::size_t i = 0, run = 0, begin = 0; i < n; ++i) {
        if (i + 1 < n && equal(sorted[i], sorted[i + 1])) continue;
        keys[run] = sorted[i];
        counts[run++] = static_cast<std::int64_t>(i + 1 - begin);
        begin = i + 1;
    }
}

}  // namespace pycurate::uid
