#include "kernels/hamming/bands.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "common/thread_pool.h"

namespace pycurate::hamming {
namespace {

constexpr unsigned most_digit_bits = 12;     // 4,096 counters stay in the first-level cache
constexpr unsigned most_key_bits = 24;       // 64 MB of starts
constexpr std::size_t chunk_rows = 1 << 20;  // of a sort; a few ms each

/// Keys within `radius` bits of one of `bits` bits.
double ball(unsigned bits, unsigned radius) noexcept {
    double total = 1, shell = 1;
    for (unsigned i = 1; i <= std::min(bits, radius); ++i)
        total += shell *= static_cast<double>(bits - i + 1) / static_cast<double>(i);
    return total;
}

/// Nanoseconds of one thread for one band of codes whose bits are fair coins, measured on one Zen 4 core: a
/// row to be sorted, a bucket to be looked up, a row that meets a bucket, a pair of words to be compared.
double band_cost(double a_rows, double b_rows, bool self, std::size_t words, unsigned bits,
                 unsigned radius) noexcept {
    constexpr double row_ns = 14, bucket_ns = 6, meeting_ns = 4, pair_ns = 0.075;
    const double keys = std::exp2(bits), near = ball(bits, radius), halved = self ? 0.5 : 1;
    const double in_bucket = b_rows / keys, pairs = a_rows * near * in_bucket * halved;
    const double sorting = bits == 0 ? 0 : row_ns * (a_rows + (self ? 0 : b_rows)) + keys;
    return sorting + bucket_ns * std::min(keys, a_rows) * near * halved +
           meeting_ns * a_rows * near * halved * std::min(1.0, in_bucket) +
           pair_ns * static_cast<double>(words) * pairs;
}

/// `count` bands over all bits, the radii as even as their sum allows; of each band at most `most_bits` bits.
std::vector<Band> even_bands(std::size_t bits, unsigned radius, std::size_t count, unsigned most_bits) {
    std::vector<Band> bands(count);
    const std::size_t spare = radius + 1 - count;  // what the radii sum to
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t begin = bits * i / count, end = bits * (i + 1) / count;
        bands[i] = {static_cast<unsigned>(begin), std::min(static_cast<unsigned>(end - begin), most_bits),
                    static_cast<unsigned>(spare * (i + 1) / count - spare * i / count)};
    }
    return bands;
}

}  // namespace

std::vector<Band> plan_bands(std::size_t a_rows, std::size_t b_rows, bool self, std::size_t words,
                             unsigned radius, int count) {
    const std::size_t bits = 64 * words, most = std::min<std::size_t>(radius + 1, bits);
    const auto a = static_cast<double>(a_rows), b = static_cast<double>(b_rows);
    std::vector<Band> best{{0, 0, 0}};
    if (count < 0) return best;
    // 5 % in favour of brute force, whose time depends on nothing.
    double least = count > 0 ? HUGE_VAL : 0.95 * band_cost(a, b, self, words, 0, 0);
    const std::size_t fewest = count > 0 ? static_cast<std::size_t>(count) : 1;
    for (std::size_t bands = fewest; bands <= (count > 0 ? fewest : most); ++bands)
        for (unsigned most_bits = 1; most_bits <= std::min<std::size_t>(most_key_bits, bits / bands);
             ++most_bits) {
            std::vector<Band> plan = even_bands(bits, radius, bands, most_bits);
            double cost = 0;
            for (const Band& band : plan) cost += band_cost(a, b, self, words, band.bits, band.radius);
            if (cost < least) least = cost, best = std::move(plan);
        }
    return best;
}

bool sort_by_key(std::size_t n, unsigned bits, const Fill& fill, std::size_t threads, const Stop& stop,
                 Buckets& out) {
    const std::size_t workers = thread_count(threads);
    const std::size_t chunks =
        std::max<std::size_t>(1, std::max((n + chunk_rows - 1) / chunk_rows, std::min(workers, n >> 14)));
    const auto begin_of = [&](std::size_t chunk) { return n * chunk / chunks; };
    AlignedBuffer<std::uint64_t> items(n), other(n);
    const auto fill_chunk = [&](std::size_t chunk) {
        fill(begin_of(chunk), begin_of(chunk + 1), items.data());
    };
    if (!parallel_for(chunks, threads, fill_chunk, stop)) return false;
    // Digits of the key from the lowest up, each pass out of place and stable.
    std::vector<std::uint32_t> places;
    const unsigned passes = (bits + most_digit_bits - 1) / most_digit_bits;
    for (unsigned pass = 0; pass < passes; ++pass) {
        const unsigned done = bits * pass / passes, shift = 32 + done,
                       width = bits * (pass + 1) / passes - done;
        const std::size_t bins = std::size_t{1} << width;
        const auto digit = [&](std::uint64_t item) { return item >> shift & (bins - 1); };
        places.assign(chunks * bins, 0);
        const auto count = [&](std::size_t chunk) {
            std::uint32_t* counts = places.data() + chunk * bins;
            for (std::size_t i = begin_of(chunk); i < begin_of(chunk + 1); ++i) ++counts[digit(items[i])];
        };
        if (!parallel_for(chunks, threads, count, stop)) return false;
        std::uint32_t total = 0;
        for (std::size_t bin = 0; bin < bins; ++bin)
            for (std::size_t chunk = 0; chunk < chunks; ++chunk)
                total += std::exchange(places[chunk * bins + bin], total);
        const auto scatter = [&](std::size_t chunk) {
            std::uint32_t* place = places.data() + chunk * bins;
            for (std::size_t i = begin_of(chunk); i < begin_of(chunk + 1); ++i)
                other[place[digit(items[i])]++] = items[i];
        };
        if (!parallel_for(chunks, threads, scatter, stop)) return false;
        std::swap(items, other);
    }
    out.starts.assign((std::size_t{1} << bits) + 1, static_cast<std::uint32_t>(n));
    std::size_t next = 0;  // the first key whose start is not known yet
    for (std::size_t i = 0; i < n; ++i)
        for (const std::size_t at = items[i] >> 32; next <= at; ++next)
            out.starts[next] = static_cast<std::uint32_t>(i);
    out.keyed = std::move(items);
    return true;
}

bool order_by_band(Codes codes, std::size_t words, Band band, std::size_t threads, const Stop& stop,
                   BandedRows& out) {
    const std::size_t n = codes.n;
    const auto fill = [&](std::size_t begin, std::size_t end, std::uint64_t* items) {
        for (std::size_t i = begin; i < end; ++i) {
            const std::uint64_t* code = codes.data + i * words;
            items[i] = std::uint64_t{key_of(band, [&](std::size_t w) { return code[w]; })} << 32 | i;
        }
    };
    if (!sort_by_key(n, band.bits, fill, threads, stop, out.buckets)) return false;
    out.planes = AlignedBuffer<std::uint64_t>(n * words);
    out.n = n;
    const auto gather = [&](std::size_t chunk) {
        for (std::size_t p = chunk * chunk_rows; p < std::min(n, (chunk + 1) * chunk_rows); ++p)
            for (std::size_t w = 0; w < words; ++w)
                out.planes[w * n + p] = codes.data[out.buckets.row(p) * words + w];
    };
    return parallel_for((n + chunk_rows - 1) / chunk_rows, threads, gather, stop);
}

bool find_copies(Codes a, std::size_t words, std::int64_t* copy_of, std::size_t threads, const Poll& poll) {
    // About one row a bucket; equal codes share one.
    const auto bits = std::clamp(static_cast<unsigned>(std::bit_width(a.n)), 1u, most_key_bits);
    const auto fill = [&](std::size_t begin, std::size_t end, std::uint64_t* items) {
        for (std::size_t i = begin; i < end; ++i) {
            std::uint64_t hash = 0;
            for (std::size_t w = 0; w < words; ++w) {
                hash = (hash ^ a.data[i * words + w]) * 0x9e37'79b9'7f4a'7c15u;
                hash ^= hash >> 32;
            }
            items[i] = (hash * 0xc2b2'ae3d'27d4'eb4fu >> (64 - bits)) << 32 | i;
        }
    };
    Buckets buckets;
    if (!sort_by_key(a.n, bits, fill, threads, [&] { return poll && poll(0.0); }, buckets)) return false;
    std::fill_n(copy_of, a.n, std::int64_t{-1});
    std::vector<std::size_t> firsts;
    for (std::size_t bucket = 0; bucket + 1 < buckets.starts.size(); ++bucket) {
        firsts.clear();
        for (std::size_t p = buckets.starts[bucket]; p < buckets.starts[bucket + 1]; ++p) {
            const std::size_t row = buckets.row(p);
            const std::uint64_t* code = a.data + row * words;
            const auto same = std::find_if(firsts.begin(), firsts.end(), [&](std::size_t first) {
                return std::equal(code, code + words, a.data + first * words);
            });
            if (same != firsts.end())
                copy_of[row] = static_cast<std::int64_t>(*same);
            else
                firsts.push_back(row);
        }
    }
    return true;
}

}  // namespace pycurate::hamming
