// Radix sort of 128-bit keys from the highest digit down, each level out of place (hence stable) between the
// array and a scratch of the same size. A level starts at the highest bit in which its rows differ, so that
// common prefixes cost one look and no move.
#include <algorithm>
#include <bit>
#include <memory>
#include <vector>

#include "common/thread_pool.h"
#include "kernels/uid/uid.h"

namespace pycurate::uid {
namespace {

struct NoPayload {};

bool less(Uid x, Uid y) noexcept { return x.high < y.high || (x.high == y.high && x.low < y.low); }

/// Keys with their payloads, as two parallel arrays.
template <class Payload>
struct Rows {
    Uid* keys;
    Payload* payload;

    static constexpr bool has_payload = !std::is_same_v<Payload, NoPayload>;

    Rows operator+(std::size_t i) const noexcept {
        if constexpr (has_payload) return {keys + i, payload + i};
        return {keys + i, nullptr};
    }
    void put(std::size_t to, Rows from, std::size_t i) const noexcept {
        keys[to] = from.keys[i];
        if constexpr (has_payload) payload[to] = from.payload[i];
    }
    void copy(Rows from, std::size_t n) const noexcept {
        std::copy_n(from.keys, n, keys);
        if constexpr (has_payload) std::copy_n(from.payload, n, payload);
    }
};

/// Where the rows of a range differ, and whether they are in order already.
struct Scan {
    Uid difference{0, 0};
    bool sorted = true;

    void look(const Uid* keys, std::size_t begin, std::size_t end) noexcept {
        std::uint64_t high = 0, low = 0;
        bool in_order = true;
        for (std::size_t i = std::max<std::size_t>(begin, 1); i < end; ++i) {
            high |= keys[i].high ^ keys[i - 1].high;
            low |= keys[i].low ^ keys[i - 1].low;
            in_order &= !less(keys[i], keys[i - 1]);
        }
        difference.high |= high;
        difference.low |= low;
        sorted &= in_order;
    }
};

/// `bits` bits of one of the two words.
struct Digit {
    bool in_high;
    unsigned shift, bits;

    /// The highest bits in which rows differ; about 8 rows a bin when the bits are random, at most 2^most
    /// bins.
    static Digit choose(const Scan& scan, std::size_t n, unsigned most) noexcept {
        const bool in_high = scan.difference.high != 0;
        const auto top =
            static_cast<unsigned>(std::bit_width(in_high ? scan.difference.high : scan.difference.low));
        const auto wanted = static_cast<unsigned>(std::bit_width(n)) - 3;
        const unsigned bits = std::min({std::max(wanted, 2u), most, top});
        return {in_high, top - bits, bits};
    }
    std::size_t bins() const noexcept { return std::size_t{1} << bits; }
    std::size_t of(const Uid& key) const noexcept {
        return (in_high ? key.high : key.low) >> shift & (bins() - 1);
    }
};

constexpr std::size_t insertion_rows = 32;
constexpr unsigned bucket_bits = 11, large_bits = 8;

template <class Payload>
void insertion_sort(Rows<Payload> rows, std::size_t n) noexcept {
    for (std::size_t i = 1; i < n; ++i) {
        const Uid key = rows.keys[i];
        if (!less(key, rows.keys[i - 1])) continue;
        Payload payload{};
        if constexpr (Rows<Payload>::has_payload) payload = rows.payload[i];
        std::size_t j = i;
        do {
            rows.put(j, rows, j - 1);
            --j;
        } while (j > 0 && less(key, rows.keys[j - 1]));
        rows.keys[j] = key;
        if constexpr (Rows<Payload>::has_payload) rows.payload[j] = payload;
    }
}

/// Sort `rows` (n,) into itself or, with `into_other`, into `other` (n,); the one not wanted is scratch.
template <class Payload>
void sort_bucket(Rows<Payload> rows, Rows<Payload> other, std::size_t n, bool into_other) noexcept {
    if (n <= insertion_rows) {
        insertion_sort(rows, n);
        if (into_other) other.copy(rows, n);
        return;
    }
    Scan scan;
    scan.look(rows.keys, 0, n);
    if (scan.sorted) {
        if (into_other) other.copy(rows, n);
        return;
    }
    const Digit digit = Digit::choose(scan, n, bucket_bits);
    std::uint32_t ends[std::size_t{1} << bucket_bits];
    std::fill_n(ends, digit.bins(), 0u);
    for (std::size_t i = 0; i < n; ++i) ++ends[digit.of(rows.keys[i])];
    std::uint32_t total = 0, largest = 0;
    for (std::size_t bin = 0; bin < digit.bins(); ++bin) {
        largest = std::max(largest, ends[bin]);
        const std::uint32_t begin = total;
        total += ends[bin];
        ends[bin] = begin;
    }
    for (std::size_t i = 0; i < n; ++i) other.put(ends[digit.of(rows.keys[i])]++, rows, i);
    if (largest <=
        insertion_rows) {  // one call for all bins: they are in order, so no row moves past its bin
        insertion_sort(other, n);
        if (!into_other) rows.copy(other, n);
        return;
    }
    for (std::size_t bin = 0, begin = 0; bin < digit.bins(); begin = ends[bin++])
        sort_bucket(other + begin, rows + begin, ends[bin] - begin, !into_other);
}

/// As sort_bucket, for ranges worth several threads and a poll.
template <class Payload>
bool sort_large(Rows<Payload> rows, Rows<Payload> other, std::size_t n, bool into_other, std::size_t threads,
                const std::function<bool()>& poll) {
    constexpr std::size_t large = std::size_t{1} << 20;
    if (n <= large) {
        sort_bucket(rows, other, n, into_other);
        return !poll || !poll();
    }
    const std::size_t chunks = std::min<std::size_t>(n / (large / 4), 1024);
    const auto chunk_begin = [&](std::size_t chunk) {
        return n / chunks * chunk + std::min(chunk, n % chunks);
    };
    std::vector<Scan> scans(chunks);
    const auto look = [&](std::size_t c) { scans[c].look(rows.keys, chunk_begin(c), chunk_begin(c + 1)); };
    if (!parallel_for(chunks, threads, look, poll)) return false;
    Scan scan;
    for (const Scan& part : scans) {
        scan.difference.high |= part.difference.high;
        scan.difference.low |= part.difference.low;
        scan.sorted &= part.sorted;
    }
    if (scan.sorted) {
        if (into_other) other.copy(rows, n);
        return true;
    }
    const Digit digit = Digit::choose(scan, n, large_bits);
    std::vector<std::size_t> ends(chunks << digit.bits);
    const auto count = [&](std::size_t c) {
        std::size_t* counts = ends.data() + (c << digit.bits);
        for (std::size_t i = chunk_begin(c); i < chunk_begin(c + 1); ++i) ++counts[digit.of(rows.keys[i])];
    };
    const auto scatter = [&](std::size_t c) {
        std::size_t* next = ends.data() + (c << digit.bits);
        for (std::size_t i = chunk_begin(c); i < chunk_begin(c + 1); ++i)
            other.put(next[digit.of(rows.keys[i])]++, rows, i);
    };
    if (!parallel_for(chunks, threads, count, poll)) return false;
    std::vector<std::size_t> begins(digit.bins() + 1);
    std::size_t total = 0;
    for (std::size_t bin = 0; bin < digit.bins(); ++bin) {
        begins[bin] = total;
        for (std::size_t c = 0; c < chunks; ++c) {
            const std::size_t rows_here = ends[(c << digit.bits) + bin];
            ends[(c << digit.bits) + bin] = total;
            total += rows_here;
        }
    }
    begins[digit.bins()] = n;
    if (!parallel_for(chunks, threads, scatter, poll)) return false;
    const auto size = [&](std::size_t bin) { return begins[bin + 1] - begins[bin]; };
    const auto sort_small = [&](std::size_t bin) {
        if (size(bin) <= large) sort_bucket(other + begins[bin], rows + begins[bin], size(bin), !into_other);
    };
    if (!parallel_for(digit.bins(), threads, sort_small, poll)) return false;
    for (std::size_t bin = 0; bin < digit.bins(); ++bin)
        if (size(bin) > large &&
            !sort_large(other + begins[bin], rows + begins[bin], size(bin), !into_other, threads, poll))
            return false;
    return true;
}

template <class Payload>
bool sort_rows(Rows<Payload> rows, std::size_t n, std::size_t threads, const std::function<bool()>& poll) {
    if (first_unsorted(rows.keys, n, false) == n) return true;
    const auto keys = std::make_unique_for_overwrite<Uid[]>(n);
    std::unique_ptr<Payload[]> payload;
    if constexpr (Rows<Payload>::has_payload) payload = std::make_unique_for_overwrite<Payload[]>(n);
    return sort_large(rows, Rows<Payload>{keys.get(), payload.get()}, n, false, threads, poll);
}

}  // namespace

bool sort(Uid* keys, std::size_t n, std::size_t threads, const std::function<bool()>& poll) {
    return sort_rows(Rows<NoPayload>{keys, nullptr}, n, threads, poll);
}

bool sort(Uid* keys, std::uint32_t* payload, std::size_t n, std::size_t threads,
          const std::function<bool()>& poll) {
    return sort_rows(Rows<std::uint32_t>{keys, payload}, n, threads, poll);
}

bool sort(Uid* keys, std::uint64_t* payload, std::size_t n, std::size_t threads,
          const std::function<bool()>& poll) {
    return sort_rows(Rows<std::uint64_t>{keys, payload}, n, threads, poll);
}

}  // namespace pycurate::uid
