#pragma once
// The loops of the family, written once over a lane type V that each instruction set defines. Everything here
// has internal linkage, so that no file's copy can serve another.
//
// V provides: Lanes, 16 float32, with zero(), load(x), load(x, count) which fills up with zeros,
// multiply_add(x, y, sum) = x * y + sum rounded once, fold(lanes), store(lanes, out), store(lanes, out,
// count); Wide, `integer_step` int8 as they are multiplied, with load_integers likewise, and Integers, their
// int32 sums, with zero_integers(), multiply_add_integers(x, y, sum), fold_integers(sum).
#include "common/half.h"
#include "kernels/rowwise/rowwise.h"

namespace pycurate::rowwise {
namespace {

template <class T>
const T* row_of(Matrix x, std::size_t i) noexcept {
    return reinterpret_cast<const T*>(static_cast<const char*>(x.data) +
                                      static_cast<std::ptrdiff_t>(i) * x.row_stride);
}

// Bytes that the loops ask for ahead of the ones they read. The processor's own prefetching stops at each 4
// KiB page; 2 KiB ahead, two float16 streams of 100 MB were read at 11.8 GB/s instead of 9.9 (Cascade Lake,
// one thread).
constexpr std::size_t prefetch_bytes = 2048;

/// From an address in a row to the one to prefetch: whole rows ahead, whatever the stride, unless rows are
/// long.
std::ptrdiff_t prefetch_distance(std::size_t row_bytes, std::ptrdiff_t row_stride) noexcept {
    if (row_bytes == 0 || row_bytes >= prefetch_bytes) return static_cast<std::ptrdiff_t>(prefetch_bytes);
    return static_cast<std::ptrdiff_t>((prefetch_bytes + row_bytes - 1) / row_bytes) * row_stride;
}

template <class T>
void prefetch(const T* x, std::ptrdiff_t distance) noexcept {
    __builtin_prefetch(reinterpret_cast<const char*>(x) + distance);
}

// The first two heads of a matrix ride along with its similarities: two more multiply-adds per load take
// little time from a loop that waits for memory. `riding` is how many do, 0 to 2.
constexpr std::size_t most_riding = 2;

void write_head(const Heads& heads, std::size_t i, std::size_t k, float sum) noexcept {
    const float score = sum + heads.bias[k];
    heads.out[i * heads.count + k] = score == score ? score : __builtin_nanf("");
}

template <class V, int riding>
struct RidingHeads {
    const float *first, *second;
    decltype(V::zero()) sum_first = V::zero(), sum_second = V::zero();

    RidingHeads(const Heads& heads, std::size_t d) noexcept
        : first(heads.weights), second(riding == 2 ? heads.weights + d : nullptr) {}
    template <class Load>
    void add(typename V::Lanes x, Load load) noexcept {
        if constexpr (riding > 0) sum_first = V::multiply_add(x, load(first), sum_first);
        if constexpr (riding > 1) sum_second = V::multiply_add(x, load(second), sum_second);
    }
    void write(const Heads& heads, std::size_t i) const noexcept {
        if constexpr (riding > 0) write_head(heads, i, 0, V::fold(sum_first));
        if constexpr (riding > 1) write_head(heads, i, 1, V::fold(sum_second));
    }
};

template <class V, class T>
void sum_dots(Matrix a, Matrix b, std::size_t n, std::size_t d, double* ab) noexcept {
    const auto ahead_a = n > 1 ? prefetch_distance(d * sizeof(T), a.row_stride) : 0;
    const auto ahead_b = n > 1 ? prefetch_distance(d * sizeof(T), b.row_stride) : 0;
    for (std::size_t i = 0; i < n; ++i) {
        const T *x = row_of<T>(a, i), *y = row_of<T>(b, i);
        auto sum = V::zero();
        std::size_t j = 0;
        for (; j + 16 <= d; j += 16) {
            prefetch(x + j, ahead_a), prefetch(y + j, ahead_b);
            sum = V::multiply_add(V::load(x + j), V::load(y + j), sum);
        }
        if (j < d) sum = V::multiply_add(V::load(x + j, d - j), V::load(y + j, d - j), sum);
        ab[i] = static_cast<double>(V::fold(sum));
    }
}

/// Pairs of rows that lie anywhere: four sums at a time hide the latency of the multiply-add, and the rows of
/// the four pairs after them are asked for meanwhile.
template <class V, class T>
void sum_anywhere(const void* const* xs, const void* const* ys, std::size_t n, std::size_t d,
                  double* ab) noexcept {
    const auto row = [&](const void* const* rows, std::size_t k) noexcept {
        return static_cast<const T*>(rows[k]);
    };
    std::size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const std::size_t next = i + 8 <= n ? i + 4 : i;
        const T *x0 = row(xs, i), *x1 = row(xs, i + 1), *x2 = row(xs, i + 2), *x3 = row(xs, i + 3);
        const T *y0 = row(ys, i), *y1 = row(ys, i + 1), *y2 = row(ys, i + 2), *y3 = row(ys, i + 3);
        const T *next_x0 = row(xs, next), *next_x2 = row(xs, next + 2);
        const T *next_y0 = row(ys, next), *next_y1 = row(ys, next + 1), *next_y2 = row(ys, next + 2),
                *next_y3 = row(ys, next + 3);
        auto sum0 = V::zero(), sum1 = V::zero(), sum2 = V::zero(), sum3 = V::zero();
        const auto add = [&](auto load) noexcept {
            sum0 = V::multiply_add(load(x0), load(y0), sum0);
            sum1 = V::multiply_add(load(x1), load(y1), sum1);
            sum2 = V::multiply_add(load(x2), load(y2), sum2);
            sum3 = V::multiply_add(load(x3), load(y3), sum3);
        };
        std::size_t j = 0;
        for (; j + 16 <= d; j += 16) {
            prefetch(next_x0 + j, 0), prefetch(next_x2 + j, 0);  // pairs of one row come together
            prefetch(next_y0 + j, 0), prefetch(next_y1 + j, 0), prefetch(next_y2 + j, 0),
                prefetch(next_y3 + j, 0);
            add([j](const T* from) noexcept { return V::load(from + j); });
        }
        if (j < d) add([j, d](const T* from) noexcept { return V::load(from + j, d - j); });
        ab[i] = static_cast<double>(V::fold(sum0)), ab[i + 1] = static_cast<double>(V::fold(sum1));
        ab[i + 2] = static_cast<double>(V::fold(sum2)), ab[i + 3] = static_cast<double>(V::fold(sum3));
    }
    for (; i < n; ++i) sum_dots<V, T>({xs[i], 0}, {ys[i], 0}, 1, d, ab + i);
}

template <class V, class T, int riding_a, int riding_b>
void sum_pairs(Matrix a, Matrix b, std::size_t n, std::size_t d, const Heads& heads_a, const Heads& heads_b,
               double* ab, double* aa, double* bb) noexcept {
    const auto ahead_a = prefetch_distance(d * sizeof(T), a.row_stride);
    const auto ahead_b = prefetch_distance(d * sizeof(T), b.row_stride);
    for (std::size_t i = 0; i < n; ++i) {
        const T *x = row_of<T>(a, i), *y = row_of<T>(b, i);
        auto sum_ab = V::zero(), sum_aa = V::zero(), sum_bb = V::zero();
        RidingHeads<V, riding_a> ride_a(heads_a, d);
        RidingHeads<V, riding_b> ride_b(heads_b, d);
        const auto add = [&](auto load) noexcept {
            const auto lanes_x = load(x), lanes_y = load(y);
            sum_ab = V::multiply_add(lanes_x, lanes_y, sum_ab);
            sum_aa = V::multiply_add(lanes_x, lanes_x, sum_aa);
            sum_bb = V::multiply_add(lanes_y, lanes_y, sum_bb);
            ride_a.add(lanes_x, load);
            ride_b.add(lanes_y, load);
        };
        std::size_t j = 0;
        for (; j + 16 <= d; j += 16) {
            prefetch(x + j, ahead_a), prefetch(y + j, ahead_b);
            add([j](auto* from) noexcept { return V::load(from + j); });
        }
        if (j < d) add([j, d](auto* from) noexcept { return V::load(from + j, d - j); });
        ab[i] = static_cast<double>(V::fold(sum_ab));
        aa[i] = static_cast<double>(V::fold(sum_aa));
        bb[i] = static_cast<double>(V::fold(sum_bb));
        ride_a.write(heads_a, i);
        ride_b.write(heads_b, i);
    }
}

template <class V, class T, int riding>
void sum_rows(Matrix a, std::size_t n, std::size_t d, const Heads& heads, double* aa) noexcept {
    const auto ahead = prefetch_distance(d * sizeof(T), a.row_stride);
    for (std::size_t i = 0; i < n; ++i) {
        const T* x = row_of<T>(a, i);
        auto sum = V::zero();
        RidingHeads<V, riding> ride(heads, d);
        const auto add = [&](auto load) noexcept {
            const auto lanes = load(x);
            sum = V::multiply_add(lanes, lanes, sum);
            ride.add(lanes, load);
        };
        std::size_t j = 0;
        for (; j + 16 <= d; j += 16) {
            prefetch(x + j, ahead);
            add([j](auto* from) noexcept { return V::load(from + j); });
        }
        if (j < d) add([j, d](auto* from) noexcept { return V::load(from + j, d - j); });
        aa[i] = static_cast<double>(V::fold(sum));
        ride.write(heads, i);
    }
}

/// Two heads of four rows that are in cache: eight independent sums hide the latency of the multiply-add, and
/// a row is widened once for both heads. The same row or head may be passed twice.
template <class V, class T>
void sum_two_heads(const T* const (&x)[4], const float* v, const float* w, std::size_t d,
                   float (&out)[4][2]) noexcept {
    auto v0 = V::zero(), v1 = V::zero(), v2 = V::zero(), v3 = V::zero();
    auto w0 = V::zero(), w1 = V::zero(), w2 = V::zero(), w3 = V::zero();
    const auto add = [&](auto load) noexcept {
        const auto weights_v = load(v), weights_w = load(w);
        const auto x0 = load(x[0]), x1 = load(x[1]), x2 = load(x[2]), x3 = load(x[3]);
        v0 = V::multiply_add(x0, weights_v, v0), w0 = V::multiply_add(x0, weights_w, w0);
        v1 = V::multiply_add(x1, weights_v, v1), w1 = V::multiply_add(x1, weights_w, w1);
        v2 = V::multiply_add(x2, weights_v, v2), w2 = V::multiply_add(x2, weights_w, w2);
        v3 = V::multiply_add(x3, weights_v, v3), w3 = V::multiply_add(x3, weights_w, w3);
    };
    std::size_t j = 0;
    for (; j + 16 <= d; j += 16) add([j](auto* from) noexcept { return V::load(from + j); });
    if (j < d) add([j, d](auto* from) noexcept { return V::load(from + j, d - j); });
    out[0][0] = V::fold(v0), out[0][1] = V::fold(w0);
    out[1][0] = V::fold(v1), out[1][1] = V::fold(w1);
    out[2][0] = V::fold(v2), out[2][1] = V::fold(w2);
    out[3][0] = V::fold(v3), out[3][1] = V::fold(w3);
}

template <class V, class T>
void sum_heads_from(std::size_t head, Matrix x, std::size_t n, std::size_t d, const Heads& heads) noexcept {
    for (std::size_t k = head; k < heads.count; k += 2) {
        const std::size_t together = heads.count - k < 2 ? 1 : 2;
        for (std::size_t i = 0; i < n; i += 4) {
            const std::size_t rows = n - i < 4 ? n - i : 4;
            const T* group[4];
            for (std::size_t r = 0; r < 4; ++r) group[r] = row_of<T>(x, r < rows ? i + r : i);
            float sums[4][2];
            sum_two_heads<V, T>(group, heads.weights + k * d, heads.weights + (k + together - 1) * d, d,
                                sums);
            for (std::size_t r = 0; r < rows; ++r)
                for (std::size_t h = 0; h < together; ++h) write_head(heads, i + r, k + h, sums[r][h]);
        }
    }
}

constexpr std::size_t riding_of(const Heads& heads) noexcept {
    return heads.count < most_riding ? heads.count : most_riding;
}

template <class V, class T>
void pair_sums(Matrix a, Matrix b, std::size_t n, std::size_t d, const Heads& heads_a, const Heads& heads_b,
               double* ab, double* aa, double* bb) noexcept {
    static constexpr decltype(&sum_pairs<V, T, 0, 0>) loops[3][3] = {
        {sum_pairs<V, T, 0, 0>, sum_pairs<V, T, 0, 1>, sum_pairs<V, T, 0, 2>},
        {sum_pairs<V, T, 1, 0>, sum_pairs<V, T, 1, 1>, sum_pairs<V, T, 1, 2>},
        {sum_pairs<V, T, 2, 0>, sum_pairs<V, T, 2, 1>, sum_pairs<V, T, 2, 2>}};
    loops[riding_of(heads_a)][riding_of(heads_b)](a, b, n, d, heads_a, heads_b, ab, aa, bb);
    sum_heads_from<V, T>(most_riding, a, n, d, heads_a);
    sum_heads_from<V, T>(most_riding, b, n, d, heads_b);
}

template <class V, class T>
void row_sums(Matrix x, std::size_t n, std::size_t d, const Heads& heads, double* xx) noexcept {
    static constexpr decltype(&sum_rows<V, T, 0>) loops[3] = {sum_rows<V, T, 0>, sum_rows<V, T, 1>,
                                                              sum_rows<V, T, 2>};
    loops[riding_of(heads)](x, n, d, heads, xx);
    sum_heads_from<V, T>(most_riding, x, n, d, heads);
}

// 65,536 products of at most 2^14 fit an int32; longer rows are summed in pieces.
constexpr std::size_t integer_piece = 65'536;

template <class V, bool with_squares>
void sum_integers(const std::int8_t* a, const std::int8_t* b, std::size_t d, std::ptrdiff_t ahead_a,
                  std::ptrdiff_t ahead_b, double& ab, double* aa, double* bb) noexcept {
    std::int64_t total_ab = 0, total_aa = 0, total_bb = 0;
    for (std::size_t begin = 0; begin < d; begin += integer_piece) {
        const std::size_t end = d - begin < integer_piece ? d : begin + integer_piece;
        auto sum_ab = V::zero_integers(), sum_aa = V::zero_integers(), sum_bb = V::zero_integers();
        const auto add = [&](typename V::Wide x, typename V::Wide y) noexcept {
            sum_ab = V::multiply_add_integers(x, y, sum_ab);
            if constexpr (with_squares) {
                sum_aa = V::multiply_add_integers(x, x, sum_aa);
                sum_bb = V::multiply_add_integers(y, y, sum_bb);
            }
        };
        std::size_t j = begin;
        for (; j + V::integer_step <= end; j += V::integer_step) {
            prefetch(a + j, ahead_a), prefetch(b + j, ahead_b);
            add(V::load_integers(a + j), V::load_integers(b + j));
        }
        if (j < end) add(V::load_integers(a + j, end - j), V::load_integers(b + j, end - j));
        total_ab += V::fold_integers(sum_ab);
        total_aa += V::fold_integers(sum_aa);
        total_bb += V::fold_integers(sum_bb);
    }
    ab = static_cast<double>(total_ab);
    if constexpr (with_squares) *aa = static_cast<double>(total_aa), *bb = static_cast<double>(total_bb);
}

template <class V>
void pair_sums_int8(Matrix a, Matrix b, std::size_t n, std::size_t d, const Heads& heads_a,
                    const Heads& heads_b, double* ab, double* aa, double* bb) noexcept {
    const auto ahead_a = prefetch_distance(d, a.row_stride), ahead_b = prefetch_distance(d, b.row_stride);
    for (std::size_t i = 0; i < n; ++i)
        sum_integers<V, true>(row_of<std::int8_t>(a, i), row_of<std::int8_t>(b, i), d, ahead_a, ahead_b,
                              ab[i], aa + i, bb + i);
    sum_heads_from<V, std::int8_t>(0, a, n, d, heads_a);
    sum_heads_from<V, std::int8_t>(0, b, n, d, heads_b);
}

template <class V>
void dots_int8(Matrix a, Matrix b, std::size_t n, std::size_t d, double* ab) noexcept {
    const auto ahead_a = prefetch_distance(d, a.row_stride), ahead_b = prefetch_distance(d, b.row_stride);
    for (std::size_t i = 0; i < n; ++i)
        sum_integers<V, false>(row_of<std::int8_t>(a, i), row_of<std::int8_t>(b, i), d, ahead_a, ahead_b,
                               ab[i], nullptr, nullptr);
}

template <class V>
void anywhere_int8(const void* const* xs, const void* const* ys, std::size_t n, std::size_t d,
                   double* ab) noexcept {
    for (std::size_t i = 0; i < n; ++i)
        sum_integers<V, false>(static_cast<const std::int8_t*>(xs[i]), static_cast<const std::int8_t*>(ys[i]),
                               d, 0, 0, ab[i], nullptr, nullptr);
}

template <class V>
void row_sums_int8(Matrix x, std::size_t n, std::size_t d, const Heads& heads, double* xx) noexcept {
    dots_int8<V>(x, x, n, d, xx);
    sum_heads_from<V, std::int8_t>(0, x, n, d, heads);
}

template <class V, class From, class To>
void convert(const void* x, std::size_t d, void* out) noexcept {
    const From* from = static_cast<const From*>(x);
    To* to = static_cast<To*>(out);
    std::size_t j = 0;
    for (; j + 16 <= d; j += 16) V::store(V::load(from + j), to + j);
    if (j < d) V::store(V::load(from + j, d - j), to + j, d - j);
}

template <class V>
constexpr Kernels kernels_of{
    {pair_sums<V, float>, pair_sums<V, Float16>, pair_sums<V, BFloat16>, pair_sums_int8<V>},
    {sum_dots<V, float>, sum_dots<V, Float16>, sum_dots<V, BFloat16>, dots_int8<V>},
    {sum_anywhere<V, float>, sum_anywhere<V, Float16>, sum_anywhere<V, BFloat16>, anywhere_int8<V>},
    {row_sums<V, float>, row_sums<V, Float16>, row_sums<V, BFloat16>, row_sums_int8<V>},
    {{convert<V, float, float>, convert<V, float, Float16>, convert<V, float, BFloat16>},
     {convert<V, Float16, float>, convert<V, Float16, Float16>, convert<V, Float16, BFloat16>},
     {convert<V, BFloat16, float>, convert<V, BFloat16, Float16>, convert<V, BFloat16, BFloat16>}}};

}  // namespace
}  // namespace pycurate::rowwise
