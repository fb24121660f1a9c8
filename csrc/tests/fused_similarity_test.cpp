#include "kernels/fused_similarity/fused_similarity.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "common/half.h"
#include "common/isa.h"
#include "kernels/rowwise/similarity.h"

namespace pycurate::tests {
namespace {

using namespace fused_similarity;
using rowwise::infinity, rowwise::similarity_of;

constexpr Element elements[] = {Element::float32, Element::float16, Element::bfloat16, Element::int8};
constexpr Metric metrics[] = {Metric::cosine, Metric::inner_product, Metric::l2};
const char* const element_names[] = {"float32", "float16", "bfloat16", "int8"};
const char* const metric_names[] = {"cosine", "inner_product", "l2"};
constexpr std::size_t tile = group_rows * panel_rows;

/// An aligned buffer with not one element more, every one set.
template <class T, class Value>
AlignedBuffer<T> filled(std::size_t size, const Value& value) {
    AlignedBuffer<T> result(size);
    for (std::size_t i = 0; i < size; ++i) result[i] = static_cast<T>(value());
    return result;
}

template <class T>
AlignedBuffer<T> copied(const AlignedBuffer<T>& x) {
    AlignedBuffer<T> result(x.size());
    std::copy_n(x.data(), x.size(), result.data());
    return result;
}

template <class T>
bool same_bytes(const T* x, const T* y, std::size_t size) {
    return size == 0 || std::memcmp(x, y, size * sizeof(T)) == 0;
}

template <class Each>
void for_every_table(const Each& each) {
    std::size_t at = 0;
    for (const Kernels& kernels : kernels_of(active_isa()))
        each(kernels, " of table " + std::to_string(at++));
}

// Kernels.

void screen_equals_a_plain_loop() {
    for_every_table([](const Kernels& kernels, const std::string& which) {
        std::mt19937 random(1);
        const int most = kernels.halved_group ? 127 : 255;
        for (const std::size_t steps : {0, 1, 2, 3, 16, 33}) {
            // Random bytes, and those whose sums are as far from 0 as any.
            for (const int kind : {0, 1, 2}) {
                const auto group = filled<std::uint8_t>(steps * group_step_bytes, [&] {
                    return kind == 0 ? static_cast<int>(random() % static_cast<unsigned>(most + 1)) : most;
                });
                const auto panel = filled<std::int8_t>(steps * panel_step_bytes, [&] {
                    return kind == 0 ? static_cast<int>(random() % 255u) - 127 : kind == 1 ? 127 : -127;
                });
                const auto start = filled<std::int32_t>(
                    panel_rows, [&] { return static_cast<int>(random() % 20'000u) - 10'000; });
                std::vector<std::int32_t> expected(tile);
                for (std::size_t r = 0; r < group_rows; ++r)
                    for (std::size_t c = 0; c < panel_rows; ++c) {
                        std::int32_t sum = start[c];
                        for (std::size_t k = 0; k < steps; ++k)
                            for (std::size_t i = 0; i < step_coordinates; ++i)
                                sum += group[k * group_step_bytes + r * step_coordinates + i] *
                                       panel[k * panel_step_bytes + c * step_coordinates + i];
                        expected[r * panel_rows + c] = sum;
                    }
                auto limit = filled<std::int32_t>(group_rows, [] { return 0; });
                auto out = filled<std::int32_t>(tile, [] { return 0; });
                const auto reaches = [&] {
                    return kernels.screen(group.data(), panel.data(), steps, start.data(), limit.data(),
                                          out.data());
                };
                for (std::size_t r = 0; r < group_rows; ++r) {
                    const auto row = expected.begin() + static_cast<std::ptrdiff_t>(r * panel_rows);
                    limit[r] = *std::max_element(row, row + panel_rows) + 1;
                }
                const std::string what = which + ", steps " + std::to_string(steps);
                check(!reaches(), "no sum reaches its limit" + what);
                for (std::size_t r = 0; r < group_rows; ++r) {
                    --limit[r];
                    check(reaches(), "one sum equals its limit" + what);
                    check(same_bytes(out.data(), expected.data(), tile), "sums" + what);
                    ++limit[r];
                }
            }
        }
    });
}

void bound_says_what_reaches_its_limit() {
    for_every_table([](const Kernels& kernels, const std::string& which) {
        std::mt19937 random(2);
        std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
        for (const bool with_columns : {false, true}) {
            const auto sums = filled<std::int32_t>(
                tile, [&] { return static_cast<int>(random() % 2'000'000u) - 1'000'000; });
            const auto slack =
                filled<std::int32_t>(group_rows, [&] { return static_cast<int>(random() % 10'000u); });
            const auto factors_a = filled<float>(group_rows, [&] { return 1.0f + uniform(random) / 2; });
            auto factors_b = filled<float>(panel_rows, [&] { return 1.0f + uniform(random) / 2; });
            const auto biases_a = filled<float>(group_rows, [&] { return uniform(random); }),
                       biases_b = filled<float>(panel_rows, [&] { return uniform(random); });
            factors_b[7] = std::numeric_limits<float>::quiet_NaN();
            const auto row_limit = filled<float>(group_rows, [&] { return 1.5f + uniform(random); }),
                       col_limit = filled<float>(panel_rows, [&] { return 1.5f + uniform(random); });
            const float unit = 1e-6f, extra = 1e-5f;
            auto upper = filled<float>(tile, [] { return 0; });
            std::uint64_t masks[group_rows];
            const bool any = kernels.bound(sums.data(), slack.data(), {factors_a.data(), biases_a.data()},
                                           {factors_b.data(), biases_b.data()}, unit, extra, row_limit.data(),
                                           with_columns ? col_limit.data() : nullptr, upper.data(), masks);
            bool expected_any = false;
            for (std::size_t r = 0; r < group_rows; ++r)
                for (std::size_t c = 0; c < panel_rows; ++c) {
                    const float value = upper[r * panel_rows + c];
                    const double cosine = static_cast<double>(unit) *
                                              (static_cast<double>(sums[r * panel_rows + c]) + slack[r]) +
                                          static_cast<double>(extra);
                    const double exact =
                        static_cast<double>(factors_a[r]) * factors_b[c] * cosine + biases_a[r] + biases_b[c];
                    check(c == 7 ? value != value : std::abs(value - exact) < 2e-6, "upper bound" + which);
                    const bool reached = !(value < row_limit[r]) || (with_columns && !(value < col_limit[c]));
                    check((masks[r] >> c & 1u) == reached, "mask" + which);
                    expected_any |= reached;
                }
            check(any == expected_any, "any" + which);
            for (const std::uint64_t mask : masks) check(mask >> panel_rows == 0, "48 columns" + which);
        }
    });
}

void canonical_tile_equals_rowwise() {
    for_every_table([](const Kernels& kernels, const std::string& which) {
        std::mt19937 random(3);
        std::normal_distribution<float> normal;
        for (const std::size_t d : {0, 1, 16, 17, 33, 300}) {
            for (const float size : {1.0f, 1e-22f, 1e19f}) {
                const std::size_t width = (d + lanes - 1) / lanes * lanes, stride = width + lanes;
                const auto fill = [&](std::size_t rows) {
                    auto x = filled<float>(rows == 0 ? 0 : (rows - 1) * stride + width, [] { return 0; });
                    for (std::size_t i = 0; i < rows; ++i)
                        for (std::size_t j = 0; j < d; ++j) x[i * stride + j] = normal(random) * size;
                    return x;
                };
                const auto group = fill(group_rows), panel = fill(panel_rows);
                auto out = filled<float>(tile, [] { return 1; });
                kernels.canonical_tile(group.data(), panel.data(), stride, width, out.data());
                for (std::size_t r = 0; r < group_rows; ++r)
                    for (std::size_t c = 0; c < panel_rows; ++c) {
                        double dot = 0;
                        rowwise::active_kernels().dots[static_cast<int>(Element::float32)](
                            {group.data() + r * stride, 0}, {panel.data() + c * stride, 0}, 1, d, &dot);
                        const auto expected = static_cast<float>(dot);
                        const float actual = out[r * panel_rows + c];
                        check(
                            std::bit_cast<std::uint32_t>(actual) == std::bit_cast<std::uint32_t>(expected) ||
                                (actual != actual && expected != expected),
                            "canonical sum" + which + ", d " + std::to_string(d));
                    }
            }
        }
    });
}

void groups_are_copied_and_rows_transposed() {
    for_every_table([](const Kernels& kernels, const std::string& which) {
        std::mt19937 random(4);
        for (const std::size_t steps : {1, 5}) {
            const auto panel = filled<std::int8_t>(steps * panel_step_bytes,
                                                   [&] { return static_cast<int>(random() % 256u) - 128; });
            for (std::size_t g = 0; g < panel_groups; ++g)
                for (const int halved : {0, 1}) {
                    auto out = filled<std::uint8_t>(steps * group_step_bytes, [] { return 0; });
                    kernels.copy_group[halved](panel.data(), g, steps, out.data());
                    for (std::size_t k = 0; k < steps; ++k)
                        for (std::size_t i = 0; i < group_step_bytes; ++i) {
                            const int byte = panel[k * panel_step_bytes + g * group_step_bytes + i] + 128;
                            check(out[k * group_step_bytes + i] == byte >> halved, "group bytes" + which);
                        }
                }
        }
        for (const std::size_t d : {1, 7, 16, 33}) {
            const std::size_t stride = d + 3;
            const auto value = [&] { return static_cast<float>(random() % 1000u) - 500.0f; };
            const auto rows = filled<float>((lanes - 1) * stride + d, value),
                       factors = filled<float>(lanes, value);
            const auto signs = filled<float>(d, [&] { return random() % 2u == 0 ? 1 : -1; });
            auto out = filled<float>(d * lanes, [] { return 0; });
            kernels.transpose(rows.data(), stride, d, factors.data(), out.data());
            kernels.flip(out.data(), d, signs.data());
            for (std::size_t j = 0; j < d; ++j)
                for (std::size_t l = 0; l < lanes; ++l)
                    check(out[j * lanes + l] == rows[l * stride + j] * factors[l] * signs[j],
                          "transposed, flipped" + which);
        }
    });
}

void rotations_and_projections_are_what_they_say() {
    for_every_table([](const Kernels& kernels, const std::string& which) {
        std::mt19937 random(5);
        std::normal_distribution<float> normal;
        for (const std::size_t d : {1, 2, 4, 8, 64, 512}) {
            const auto x = filled<float>(d * lanes, [&] { return normal(random); });
            auto y = copied(x);
            kernels.hadamard(y.data(), d);
            for (std::size_t j = 0; j < d; ++j)
                for (std::size_t l = 0; l < lanes; ++l) {
                    double sum = 0;
                    for (std::size_t i = 0; i < d; ++i)
                        sum += (std::popcount(i & j) % 2 == 0 ? 1.0 : -1.0) * x[i * lanes + l];
                    check(std::abs(sum / std::sqrt(static_cast<double>(d)) - y[j * lanes + l]) < 1e-5,
                          "hadamard" + which + ", d " + std::to_string(d));
                }
        }
        for (const std::size_t d : {0, 1, 5, 200}) {
            const auto x = filled<float>(d * lanes, [&] { return normal(random); }),
                       weights = filled<float>(d * lanes, [&] { return normal(random); });
            auto out = filled<float>(lanes * lanes, [] { return 1; });
            kernels.project(x.data(), d, weights.data(), out.data());
            for (std::size_t c = 0; c < lanes; ++c)
                for (std::size_t l = 0; l < lanes; ++l) {
                    double sum = 0;
                    for (std::size_t j = 0; j < d; ++j)
                        sum += static_cast<double>(x[j * lanes + l]) * weights[j * lanes + c];
                    check(std::abs(sum - out[c * lanes + l]) < 1e-4, "projection" + which);
                }
        }
    });
}

void quantised_rows_say_their_errors() {
    for_every_table([](const Kernels& kernels, const std::string& which) {
        std::mt19937 random(6);
        std::normal_distribution<float> normal(0.0f, 0.05f);
        for (const std::size_t d : {1, 2, 3, 4, 5, 64, 511}) {
            const std::size_t steps = (d + step_coordinates - 1) / step_coordinates;
            auto x = filled<float>(d * lanes, [&] { return normal(random); });
            for (std::size_t j = 0; j < d; ++j) x[j * lanes + 3] = j == d / 2 ? 1.0f : 0.0f;  // clipped
            for (std::size_t j = 0; j < d; ++j) x[j * lanes + 4] = 0.0f;
            const float scale = 0.2f / 127.0f;
            // The bytes of 16 rows end 128 before those of a panel's last step.
            auto bytes = filled<std::int8_t>(steps * panel_step_bytes - 2 * lanes * step_coordinates,
                                             [] { return 99; });
            auto start = copied(bytes);
            Sums16 sums, halved_sums;
            kernels.quantise[0](x.data(), d, scale, start.data(), sums);
            kernels.quantise[1](x.data(), d, scale, bytes.data(), halved_sums);
            check(same_bytes(start.data(), bytes.data(), bytes.size()), "the same bytes" + which);
            check(same_bytes(sums.errors, halved_sums.errors, lanes), "the same errors" + which);
            for (std::size_t l = 0; l < lanes; ++l) {
                int sum = 0;
                double square = 0, error = 0, halved_error = 0;
                for (std::size_t j = 0; j < steps * step_coordinates; ++j) {
                    const int q = bytes[j / step_coordinates * panel_step_bytes + l * step_coordinates +
                                        j % step_coordinates];
                    check(j < d || q == 0, "filled up with zeros" + which);
                    const double value = j < d ? x[j * lanes + l] : 0.0f, step = scale;
                    check(q >= -127 && q <= 127, "in range" + which);
                    check(std::abs(value) > 0.2 || std::abs(value / step - q) < 0.501, "nearest" + which);
                    sum += q;
                    square += value * value;
                    error += (value - step * q) * (value - step * q);
                    const double halved = value - step * (2 * ((q + 128) >> 1) - 127.5);
                    halved_error += halved * halved;
                }
                const double most = 1.0 + 1e-6 * static_cast<double>(d);
                check(sums.quantised[l] == static_cast<float>(sum), "sum of bytes" + which);
                check(std::abs(sums.squares[l] - square) <= square * (most - 1.0), "squared norm" + which);
                // Rounding of value - scale * q, which is as small as 0, is relative to the value.
                const double rounding = 1e-6 * std::sqrt(square) + 1e-9;
                check(std::abs(std::sqrt(sums.errors[l]) - std::sqrt(error)) <=
                          std::sqrt(error) * (most - 1.0) + rounding,
                      "error" + which);
                check(std::abs(std::sqrt(halved_sums.halved_errors[l]) - std::sqrt(halved_error)) <=
                          std::sqrt(halved_error) * (most - 1.0) + rounding,
                      "error of halved bytes" + which);
            }
        }
    });
}

/// Squared norms and sums for 8 by 48 pairs, and 1 / norms.
struct TileOfSums {
    AlignedBuffer<float> dots{tile};
    AlignedBuffer<double> row_squares{group_rows}, col_squares{panel_rows}, row_inverses{group_rows},
        col_inverses{panel_rows};

    void invert() {
        for (std::size_t r = 0; r < group_rows; ++r) row_inverses[r] = 1.0 / std::sqrt(row_squares[r]);
        for (std::size_t c = 0; c < panel_rows; ++c) col_inverses[c] = 1.0 / std::sqrt(col_squares[c]);
    }
    void check_scores(const Kernels& kernels, Metric metric, const std::string& what) const {
        auto scores = filled<float>(tile, [] { return 9; });
        kernels.scores(dots.data(), {row_squares.data(), row_inverses.data()},
                       {col_squares.data(), col_inverses.data()}, metric, scores.data());
        for (std::size_t r = 0; r < group_rows; ++r)
            for (std::size_t c = 0; c < panel_rows; ++c) {
                const float expected = similarity_of(metric, static_cast<double>(dots[r * panel_rows + c]),
                                                     row_squares[r], col_squares[c]);
                const float actual = scores[r * panel_rows + c];
                check(std::isfinite(expected)
                          ? std::bit_cast<std::uint32_t>(actual) == std::bit_cast<std::uint32_t>(expected)
                          : !std::isfinite(actual),
                      "score" + what);
            }
    }
};

void scores_of_a_tile_are_canonical() {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    const float special[] = {0.0f,
                             -0.0f,
                             1.0f,
                             -1.0f,
                             3e38f,
                             -3e38f,
                             1e-45f,
                             static_cast<float>(infinity),
                             -static_cast<float>(infinity),
                             std::numeric_limits<float>::quiet_NaN()};
    for (int repetition = 0; repetition < 100; ++repetition) {
        TileOfSums sums;
        const float size = std::ldexp(1.0f, repetition - 50);
        for (std::size_t r = 0; r < group_rows; ++r) sums.row_squares[r] = std::abs(normal(random)) * size;
        for (std::size_t c = 0; c < panel_rows; ++c) sums.col_squares[c] = std::abs(normal(random)) * size;
        sums.row_squares[0] = sums.col_squares[0] = 0.1f * size;
        for (std::size_t i = 0; i < tile; ++i)
            sums.dots[i] = random() % 16u == 0 ? special[random() % std::size(special)] * size
                                               : normal(random) * size * 0.5f;
        sums.dots[0] = 0.1f * size;  // a row with itself
        sums.invert();
        for_every_table([&](const Kernels& kernels, const std::string& which) {
            for (const Metric metric : metrics)
                sums.check_scores(kernels, metric, which + ", " + metric_names[static_cast<int>(metric)]);
        });
    }
}

/// Cosines within 2^-49 of the middle between two float32, where what is a little off rounds to the other
/// one.
TileOfSums sums_next_to_ties() {
    std::mt19937 random(8);
    TileOfSums sums;
    std::fill_n(sums.row_squares.data(), group_rows, 1.0);
    std::fill_n(sums.col_squares.data(), panel_rows, 1.0);
    std::fill_n(sums.dots.data(), tile, 0.5f);
    const auto mantissa = [&] { return static_cast<float>(random() % (1u << 23)) * 0x1p-23f; };
    for (std::size_t found = 0; found < 3;) {
        const double tie = 0.5 + static_cast<double>(mantissa()) * 0.5 + 0x1p-25;
        const float dot = 0.5f + mantissa() * 0.5f;
        const double product = dot / tie * (dot / tie);
        // Of 2^23 pairs of norms whose product is nearest to it one is within 2^-48.
        for (int i = 0; i < 1 << 23; ++i) {
            const float x = 1.0f + mantissa();
            const auto y = static_cast<float>(product / x);
            if (std::abs(static_cast<double>(x) * y / product - 1.0) > 0x1p-48) continue;
            sums.row_squares[found] = x, sums.col_squares[found] = y;
            sums.dots[found * panel_rows + found] = dot;
            ++found;
            break;
        }
    }
    sums.invert();
    return sums;
}

void cosines_next_to_a_tie_are_canonical() {
    static const TileOfSums sums = sums_next_to_ties();
    for_every_table([&](const Kernels& kernels, const std::string& which) {
        sums.check_scores(kernels, Metric::cosine, which + ", next to a tie");
    });
}

void exponentials_have_the_same_bits_everywhere() {
    std::mt19937 random(9);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    for (const double scale : {0.0, 1.0, -100.0, 1000.0, 1e30, 1e308}) {
        auto scores = filled<float>(tile, [&] { return uniform(random); });
        scores[5] = std::numeric_limits<float>::quiet_NaN();
        scores[6] = static_cast<float>(infinity), scores[7] = -static_cast<float>(infinity);
        scores[8] = 3e38f, scores[9] = -3e38f;
        const auto compute = [&](const Kernels& kernels, AlignedBuffer<double>& mantissas,
                                 AlignedBuffer<double>& exponents, AlignedBuffer<double>& row_sums,
                                 AlignedBuffer<double>& col_sums) {
            auto rows = filled<double>(group_rows, [] { return 1e300; }),
                 cols = filled<double>(panel_rows, [] { return 1e300; });
            check(!kernels.exponentials(scores.data(), scale, rows.data(), cols.data(), mantissas.data(),
                                        exponents.data()),
                  "nothing beyond 2^1e300");
            const double most = *std::max_element(exponents.data(), exponents.data() + tile);
            std::fill_n(rows.data(), group_rows, most - exponent_room);
            std::fill_n(cols.data(), panel_rows, most - exponent_room);
            if (most < 1e15)
                check(!kernels.exponentials(scores.data(), scale, rows.data(), cols.data(), mantissas.data(),
                                            exponents.data()),
                      "as far as there is room");
            std::fill_n(cols.data(), panel_rows, most);
            kernels.add_exponentials(mantissas.data(), exponents.data(), rows.data(), cols.data(),
                                     row_sums.data(), col_sums.data());
            if (most >= 1e15) return;
            cols[most == exponents[8] ? 8 : 0] = most;
            const auto at = static_cast<std::size_t>(
                std::max_element(exponents.data(), exponents.data() + tile) - exponents.data());
            rows[at / panel_rows] -= 1.0;
            check(kernels.exponentials(scores.data(), scale, rows.data(), cols.data(), mantissas.data(),
                                       exponents.data()),
                  "no room in a row");
            rows[at / panel_rows] += 1.0, cols[at % panel_rows] = most - exponent_room - 1.0;
            check(kernels.exponentials(scores.data(), scale, rows.data(), cols.data(), mantissas.data(),
                                       exponents.data()),
                  "no room in a column");
        };
        const auto zeros = [](std::size_t n) { return filled<double>(n, [] { return 0; }); };
        auto m0 = zeros(tile), e0 = zeros(tile), r0 = zeros(group_rows), c0 = zeros(panel_rows);
        compute(fused_similarity::scalar, m0, e0, r0, c0);
        for (std::size_t i = 0; i < tile; ++i) {
            if (!std::isfinite(scores[i])) {
                check(m0[i] == 0 && e0[i] == no_exponent, "a score that is no number is left out");
                continue;
            }
            const long double term = static_cast<long double>(scale * static_cast<double>(scores[i]));
            if (std::abs(term) > 1e6L) continue;
            const long double actual =
                std::log(static_cast<long double>(m0[i])) + static_cast<long double>(e0[i]) * std::log(2.0L);
            check(std::abs(actual - term) < 2e-14L + std::abs(term) * 1e-16L,
                  "exp(" + std::to_string(scores[i]));
        }
        for_every_table([&](const Kernels& kernels, const std::string& which) {
            auto m = zeros(tile), e = zeros(tile), r = zeros(group_rows), c = zeros(panel_rows);
            compute(kernels, m, e, r, c);
            check(same_bytes(m.data(), m0.data(), tile) && same_bytes(e.data(), e0.data(), tile),
                  "exponentials" + which);
            check(same_bytes(r.data(), r0.data(), group_rows) && same_bytes(c.data(), c0.data(), panel_rows),
                  "sums" + which);
        });
    }
}

// Rows.

/// Rows of one element type in a buffer of exactly their size, `gap` bytes apart.
class Rows {
  public:
    std::size_t n, d;
    Element element;

    Rows(const std::vector<float>& values, std::size_t n_, std::size_t d_, Element element_, std::size_t gap)
        : n(n_),
          d(d_),
          element(element_),
          stride_(d_ * rowwise::element_bytes(element_) + gap),
          bytes_(exact_buffer<char>(n_ == 0 ? 0 : n_ * stride_ - gap)) {
        for (std::size_t i = 0; i < n; ++i)
            for (std::size_t j = 0; j < d; ++j) put(i, j, values[i * d + j]);
    }
    Matrix matrix() const noexcept { return {bytes_.get(), static_cast<std::ptrdiff_t>(stride_)}; }
    double at(std::size_t i, std::size_t j) const {
        const char* from = bytes_.get() + i * stride_ + j * rowwise::element_bytes(element);
        std::uint16_t half;
        std::memcpy(&half, from, element == Element::int8 ? 1 : 2);
        if (element == Element::float16) return widen(Float16{half});
        if (element == Element::bfloat16) return widen(BFloat16{half});
        if (element == Element::int8) return static_cast<signed char>(*from);
        float value;
        std::memcpy(&value, from, 4);
        return value;
    }

  private:
    void put(std::size_t i, std::size_t j, float value) {
        char* to = bytes_.get() + i * stride_ + j * rowwise::element_bytes(element);
        const auto byte = static_cast<signed char>(
            std::clamp(static_cast<int>(std::lround(std::clamp(value * 30.0f, -128.0f, 127.0f))), -128, 127));
        const Float16 half = narrow_to_float16(value);
        const BFloat16 brain = narrow_to_bfloat16(value);
        if (element == Element::float32) std::memcpy(to, &value, 4);
        if (element == Element::float16) std::memcpy(to, &half, 2);
        if (element == Element::bfloat16) std::memcpy(to, &brain, 2);
        if (element == Element::int8) std::memcpy(to, &byte, 1);
    }
    std::size_t stride_;
    std::unique_ptr<char[]> bytes_;
};

/// What may be hard for bounds: every ninth row has an outlying coordinate, is constant, tiny, huge, of one
/// coordinate, or nearly the row before; every tenth is the same as another.
std::vector<float> hard_rows(std::size_t n, std::size_t d, Element element, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> x(n * d);
    for (float& value : x) value = normal(random);
    const bool narrow = element == Element::float16 || element == Element::int8;
    for (std::size_t i = 1; i < n; ++i) {
        float* row = x.data() + i * d;
        const float* before = row - d;
        switch (i % 9) {
            case 1: row[random() % d] *= narrow ? 40.0f : 1e4f; break;
            case 2: std::fill_n(row, d, 0.25f); break;
            case 3:
                for (std::size_t j = 0; j < d; ++j) row[j] *= narrow ? 0.25f : 1e-12f;
                break;
            case 4:
                for (std::size_t j = 0; j < d; ++j) row[j] *= narrow ? 3.0f : 1e12f;
                break;
            case 5: std::fill_n(row, d, 0.0f), row[random() % d] = -2.0f; break;
            case 6:
                for (std::size_t j = 0; j < d; ++j) row[j] = before[j] + 0.003f * row[j];
                break;
            case 7:
                for (std::size_t j = 0; j < d; ++j) row[j] = -before[j];
                break;
            default: break;
        }
        if (i % 10 == 0) std::copy_n(x.data() + i / 2 * d, d, row);
    }
    // One value that no element type loses, so that no row has a norm of zero.
    for (std::size_t i = 0; i < n; ++i) {
        bool none = true;
        for (std::size_t j = 0; j < d; ++j)
            none &= std::abs(x[i * d + j]) < 0.02f && !(x[i * d + j] != 0 && !narrow);
        if (none) x[i * d] = 1.0f;
    }
    return x;
}

/// Random orthonormal rows, prefixes of 16 and 32 where there are so many, seven random centroids.
std::unique_ptr<Screening> random_screening(std::size_t d, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    const std::size_t p = std::min<std::size_t>(d, 40), centroids = 7;
    std::vector<double> basis(p * d);
    for (std::size_t i = 0; i < p; ++i) {
        double* row = basis.data() + i * d;
        for (std::size_t j = 0; j < d; ++j) row[j] = normal(random);
        for (int twice = 0; twice < 2; ++twice)
            for (std::size_t k = 0; k < i; ++k) {
                const double dot = std::inner_product(row, row + d, basis.data() + k * d, 0.0);
                for (std::size_t j = 0; j < d; ++j) row[j] -= dot * basis[k * d + j];
            }
        const double norm = std::sqrt(std::inner_product(row, row + d, row, 0.0));
        for (std::size_t j = 0; j < d; ++j) row[j] /= norm;
    }
    std::vector<float> projection(basis.begin(), basis.end()), centers(centroids * p);
    for (float& value : centers) value = static_cast<float>(normal(random));
    std::vector<std::size_t> stages;
    std::vector<float> norms;
    for (const std::size_t stage : {16, 32})
        if (stage <= p) {
            stages.push_back(stage);
            norms.push_back(
                static_cast<float>(std::sqrt(static_cast<double>(stage) / static_cast<double>(d))));
        }
    return std::make_unique<Screening>(projection.data(), p, d, centers.data(), centroids, p, stages, norms);
}

/// Canonical similarities of rows of x with rows of y by rowwise, which knows no tiles; (n, m).
std::vector<float> similarities(const Rows& x, const Rows& y, Metric metric) {
    std::vector<float> result(x.n * y.n);
    const Matrix rows = x.matrix();
    for (std::size_t i = 0; i < x.n && y.n > 0; ++i) {
        const Matrix row{
            static_cast<const char*>(rows.data) + static_cast<std::ptrdiff_t>(i) * rows.row_stride, 0};
        rowwise::score_pairs({row,
                              y.matrix(),
                              y.n,
                              x.d,
                              x.element,
                              metric,
                              result.data() + i * y.n,
                              nullptr,
                              nullptr,
                              nullptr,
                              {},
                              {}},
                             1);
    }
    return result;
}

std::unique_ptr<Operand> prepared(const Rows& x, Metric metric, const Screening* screening,
                                  Precision precision, std::size_t threads) {
    auto operand =
        Operand::prepare(x.matrix(), x.d, x.element, nullptr, x.n, metric, screening, precision, threads, {});
    check(operand != nullptr, "nothing asked preparation to stop");
    return operand;
}

// Bounds.

/// In long double, (n, m).
std::vector<long double> exact_cosines(const Rows& x, const Rows& y) {
    const auto unit_rows = [](const Rows& rows) {
        std::vector<long double> units(rows.n * rows.d);
        for (std::size_t i = 0; i < rows.n; ++i) {
            long double* unit = units.data() + i * rows.d;
            for (std::size_t j = 0; j < rows.d; ++j) unit[j] = static_cast<long double>(rows.at(i, j));
            const long double norm = std::sqrt(std::inner_product(unit, unit + rows.d, unit, 0.0L));
            for (std::size_t j = 0; j < rows.d; ++j) unit[j] /= norm;
        }
        return units;
    };
    const auto units_x = unit_rows(x), units_y = unit_rows(y);
    std::vector<long double> cosines(x.n * y.n);
    for (std::size_t i = 0; i < x.n; ++i) {
        const long double* unit = units_x.data() + i * x.d;
        for (std::size_t j = 0; j < y.n; ++j)
            cosines[i * y.n + j] = std::inner_product(unit, unit + x.d, units_y.data() + j * x.d, 0.0L);
    }
    return cosines;
}

void bounds_hold(const Operand& a, const Operand& b, const Rows& x, const Rows& y,
                 const std::vector<long double>& cosines, const std::string& what) {
    auto sums = filled<std::int32_t>(tile, [] { return 0; });
    auto upper = filled<float>(tile, [] { return 0; });
    std::uint64_t masks[group_rows];
    const auto limits =
        filled<std::int32_t>(group_rows, [] { return std::numeric_limits<std::int32_t>::min(); });
    const auto float_limits = filled<float>(group_rows, [] { return -infinity; });
    const auto panel_of = [](const Operand& o, const Stage& stage, std::size_t position) {
        const Stage& source = o.stages[stage.source];
        return source.panels.data() + position / panel_rows * source.steps * panel_step_bytes;
    };
    std::size_t violations = 0, loose = 0, judged = 0;
    for (std::size_t s = 0; s < a.stages.size(); ++s) {
        const Stage &stage_a = a.stages[s], &stage_b = b.stages[s];
        auto group = filled<std::uint8_t>(stage_a.steps * group_step_bytes, [] { return 0; });
        for (std::size_t row = 0; row < a.n; row += group_rows) {
            a.kernels->copy_group[a.kernels->halved_group](
                panel_of(a, stage_a, row), row % panel_rows / group_rows, stage_a.steps, group.data());
            for (std::size_t col = 0; col < b.n; col += panel_rows) {
                a.kernels->screen(group.data(), panel_of(b, stage_b, col), stage_b.steps,
                                  stage_b.start.data() + col, limits.data(), sums.data());
                a.kernels->bound(sums.data(), stage_a.group_share.data() + row,
                                 {a.factors.data() + row, a.biases.data() + row},
                                 {b.factors.data() + col, b.biases.data() + col},
                                 static_cast<float>(stage_a.unit), static_cast<float>(stage_a.extra),
                                 float_limits.data(), nullptr, upper.data(), masks);
                for (std::size_t r = 0; r < std::min(group_rows, a.n - row); ++r)
                    for (std::size_t c = 0; c < std::min(panel_rows, b.n - col); ++c) {
                        const std::size_t i = static_cast<std::size_t>(a.row_at(row + r)),
                                          j = static_cast<std::size_t>(b.row_at(col + c));
                        const long double cosine = cosines[i * y.n + j];
                        const double shares =
                            static_cast<double>(stage_a.group_share[row + r]) + stage_b.panel_share[col + c];
                        // Without the column's share, which its start holds.
                        const double middle =
                            (static_cast<double>(sums[r * panel_rows + c]) - stage_b.panel_share[col + c]) *
                            stage_a.unit;
                        const double reach = shares * stage_a.unit + stage_a.extra;
                        violations += !(std::abs(cosine - static_cast<long double>(middle)) <= reach);
                        violations += upper[r * panel_rows + c] < a.score(row + r, b, col + c);
                        if (s + 1 == a.stages.size()) loose += reach > 0.1, ++judged;
                    }
            }
        }
    }
    check(violations == 0, std::to_string(violations) + " bounds do not hold, " + what);
    // Of a lone outlier, a constant or a single coordinate too, once rotated: that is what rotating is for.
    if (x.d >= 511) check(loose * 10 < judged, "nine of ten bounds are within 0.1, " + what);
}

void proven_bounds_hold() {
    for (const Element element : elements) {
        for (const std::size_t d : {1, 3, 16, 17, 64, 511, 512}) {
            const std::size_t n = 57, m = 50;
            const Rows x(hard_rows(n, d, element, 1), n, d, element, 3),
                y(hard_rows(m, d, element, 2), m, d, element, 0);
            const auto screening = random_screening(d, 3);
            const auto cosines = exact_cosines(x, y);
            for (const Metric metric : metrics)
                for (const Screening* used : {static_cast<const Screening*>(nullptr),
                                              static_cast<const Screening*>(screening.get())}) {
                    if (metric != Metric::cosine && d > 64)
                        continue;  // only the arithmetic after the cosine differs
                    const auto a = prepared(x, metric, used, Precision::exact, 1),
                               b = prepared(y, metric, used, Precision::exact, 2);
                    check(used == nullptr || a->stages[0].coordinates == (d < 16 ? d : 16), "prefixes");
                    bounds_hold(*a, *b, x, y, cosines,
                                std::string(element_names[static_cast<int>(element)]) + ", " +
                                    metric_names[static_cast<int>(metric)] + ", d " + std::to_string(d));
                }
        }
    }
}

// Questions.

/// Two operands, or one with itself, and the similarities that answers are made from.
struct Problem {
    const Operand& a;
    const Operand* b;
    std::size_t n, m;
    std::vector<float> scores;  // (n, m)
    std::string what;

    bool self() const noexcept { return b == nullptr; }
    float score(std::size_t i, std::size_t j) const noexcept { return scores[i * m + j]; }
    /// Every pair once.
    template <class Each>
    void each_pair(const Each& each) const {
        for (std::size_t i = 0; i < n; ++i)
            for (std::size_t j = self() ? i + 1 : 0; j < m; ++j) each(i, j, score(i, j));
    }
    /// A score that a thirtieth of the pairs reach, so that >= matters.
    float threshold() const {
        std::vector<float> known;
        each_pair([&](std::size_t, std::size_t, float score) {
            if (score == score) known.push_back(score);
        });
        if (known.empty()) return 0.5f;
        const auto at = known.begin() + static_cast<std::ptrdiff_t>(known.size() - 1 - known.size() / 30);
        std::nth_element(known.begin(), at, known.end());
        return *at;
    }
};

bool same_pair(const Pair& p, const Pair& q) {
    return p.row == q.row && p.col == q.col &&
           std::bit_cast<std::uint32_t>(p.similarity) == std::bit_cast<std::uint32_t>(q.similarity);
}

void check_pairs_above(const Problem& problem, float threshold, std::size_t threads) {
    std::vector<Pair> expected, pairs;
    problem.each_pair([&](std::size_t i, std::size_t j, float score) {
        if (score >= threshold)
            expected.push_back({static_cast<std::int64_t>(i), static_cast<std::int64_t>(j), score});
    });
    const auto ask = [&](std::size_t max_pairs, bool& too_many) {
        Work work;
        pairs.clear();
        return pairs_above(problem.a, problem.b, threshold, max_pairs, pairs, too_many, threads, {}, work);
    };
    bool too_many = true;
    check(ask(expected.size(), too_many) && !too_many, "as many pairs as allowed, " + problem.what);
    check(std::equal(pairs.begin(), pairs.end(), expected.begin(), expected.end(), same_pair),
          "pairs_above, " + problem.what);
    if (expected.empty()) return;
    ask(expected.size() - 1, too_many);
    check(too_many, "a pair more than allowed, " + problem.what);
}

std::vector<std::int64_t> components_of(std::size_t nodes,
                                        const std::vector<std::pair<std::int64_t, std::int64_t>>& edges) {
    std::vector<std::int64_t> labels(nodes);
    std::iota(labels.begin(), labels.end(), std::int64_t{0});
    for (bool changed = true; changed;) {
        changed = false;
        for (const auto& [i, j] : edges) {
            auto &x = labels[static_cast<std::size_t>(i)], &y = labels[static_cast<std::size_t>(j)];
            if (x != y) x = y = std::min(x, y), changed = true;
        }
    }
    return labels;
}

void check_forest_above(const Problem& problem, float threshold, std::size_t threads) {
    const auto offset = static_cast<std::int64_t>(problem.self() ? 0 : problem.n);
    const std::size_t nodes = problem.n + (problem.self() ? 0 : problem.m);
    std::vector<std::pair<std::int64_t, std::int64_t>> edges, all;
    problem.each_pair([&](std::size_t i, std::size_t j, float score) {
        if (score >= threshold)
            all.emplace_back(static_cast<std::int64_t>(i), static_cast<std::int64_t>(j) + offset);
    });
    Work work;
    check(forest_above(problem.a, problem.b, threshold, edges, threads, {}, work), "forest");
    std::vector<std::int64_t> from, to, labels(nodes);
    for (auto& [i, j] : edges) {
        check(problem.score(static_cast<std::size_t>(i), static_cast<std::size_t>(j)) >= threshold,
              "an edge is a pair, " + problem.what);
        j += offset;
        from.push_back(i), to.push_back(j);
    }
    const auto expected = components_of(nodes, all);
    check(components_of(nodes, edges) == expected, "forest_above connects what is, " + problem.what);
    label_components(nodes, from.data(), to.data(), edges.size(), labels.data());
    check(labels == expected, "label_components, " + problem.what);
    std::size_t trees = 0;
    for (std::size_t i = 0; i < nodes; ++i) trees += expected[i] == static_cast<std::int64_t>(i);
    check(edges.size() + trees == nodes, "a forest has no ring, " + problem.what);
}

void check_count_above(const Problem& problem, float threshold, std::size_t threads) {
    const std::size_t m = problem.self() ? 0 : problem.m;
    std::vector<std::int64_t> weights_a(problem.n), weights_b(m);
    for (std::size_t i = 0; i < problem.n; ++i) weights_a[i] = static_cast<std::int64_t>(i % 5 + 1);
    for (std::size_t j = 0; j < m; ++j) weights_b[j] = static_cast<std::int64_t>(j % 7 + 1);
    for (const bool weighted : {false, true}) {
        std::vector<std::int64_t> expected_a(problem.n), expected_b(m), counts_a(problem.n), counts_b(m);
        const auto& others = problem.self() ? weights_a : weights_b;
        auto& expected_others = problem.self() ? expected_a : expected_b;
        problem.each_pair([&](std::size_t i, std::size_t j, float score) {
            if (!(score >= threshold)) return;
            expected_a[i] += weighted ? others[j] : 1;
            expected_others[j] += weighted ? weights_a[i] : 1;
        });
        Work work;
        check(count_above(problem.a, problem.b, threshold, weighted ? weights_a.data() : nullptr,
                          weighted && m > 0 ? weights_b.data() : nullptr, counts_a.data(),
                          problem.self() ? nullptr : counts_b.data(), threads, {}, work),
              "count");
        check(counts_a == expected_a && counts_b == expected_b, "count_above, " + problem.what);
    }
}

void check_max_earlier(const Problem& problem, float floor, std::size_t threads) {
    std::mt19937 random(10);
    const std::size_t m = problem.self() ? 0 : problem.m;
    std::vector<std::uint32_t> ranks(problem.n + m);
    std::iota(ranks.begin(), ranks.end(), 0u);
    std::shuffle(ranks.begin(), ranks.end(), random);
    const std::vector<std::uint32_t> ranks_a(ranks.begin(),
                                             ranks.begin() + static_cast<std::ptrdiff_t>(problem.n)),
        ranks_b(ranks.begin() + static_cast<std::ptrdiff_t>(problem.n), ranks.end());
    std::vector<std::int64_t> expected_a(problem.n, -1), expected_b(m, -1), best_a(problem.n, 7),
        best_b(m, 7);
    std::vector<float> known_a(problem.n), known_b(m), scores_a(problem.n), scores_b(m);
    const auto offer = [](std::int64_t& best, float& known, std::uint32_t rank, float score) {
        if (best >= 0 && (score < known || (score == known && best < rank))) return;
        best = rank, known = score;
    };
    problem.each_pair([&](std::size_t i, std::size_t j, float score) {
        if (!(score >= floor)) return;
        const std::uint32_t x = ranks_a[i], y = problem.self() ? ranks_a[j] : ranks_b[j];
        if (x > y)
            offer(expected_a[i], known_a[i], y, score);
        else if (problem.self())
            offer(expected_a[j], known_a[j], x, score);
        else
            offer(expected_b[j], known_b[j], x, score);
    });
    Work work;
    check(max_earlier(problem.a, problem.b, ranks_a.data(), problem.self() ? nullptr : ranks_b.data(), floor,
                      best_a.data(), scores_a.data(), problem.self() ? nullptr : best_b.data(),
                      problem.self() ? nullptr : scores_b.data(), threads, {}, work),
          "earlier");
    check(best_a == expected_a && best_b == expected_b, "max_earlier, " + problem.what);
    const auto same_scores = [](const auto& best, const auto& scores, const auto& known) {
        for (std::size_t i = 0; i < best.size(); ++i)
            if (best[i] < 0 ? scores[i] == scores[i] : scores[i] != known[i]) return false;
        return true;
    };
    check(same_scores(best_a, scores_a, known_a) && same_scores(best_b, scores_b, known_b),
          "similarities of max_earlier, " + problem.what);
}

void check_top_k(const Problem& problem, std::size_t k, std::size_t threads) {
    std::vector<std::int64_t> rows_a(problem.n * k), rows_b(problem.m * k);
    std::vector<float> scores_a(problem.n * k), scores_b(problem.m * k);
    Work work;
    check(top_k(problem.a, problem.b, k, rows_a.data(), scores_a.data(),
                problem.self() ? nullptr : rows_b.data(), problem.self() ? nullptr : scores_b.data(), threads,
                {}, work),
          "top_k");
    const auto compare = [&](std::size_t n, std::size_t m, const auto& score_of, const auto& rows,
                             const auto& scores) {
        bool same = true;
        for (std::size_t i = 0; i < n; ++i) {
            std::vector<std::pair<float, std::int64_t>> all;
            for (std::size_t j = 0; j < m; ++j)
                if (const float score = score_of(i, j); score == score && !(problem.self() && i == j))
                    all.emplace_back(-score, static_cast<std::int64_t>(j));
            std::sort(all.begin(), all.end());
            for (std::size_t r = 0; r < k; ++r)
                same &= r < all.size()
                            ? rows[i * k + r] == all[r].second && scores[i * k + r] == -all[r].first
                            : rows[i * k + r] == -1 && scores[i * k + r] != scores[i * k + r];
        }
        return same;
    };
    check(compare(
              problem.n, problem.m, [&](std::size_t i, std::size_t j) { return problem.score(i, j); }, rows_a,
              scores_a),
          "top_k, k " + std::to_string(k) + ", " + problem.what);
    if (!problem.self())
        check(compare(
                  problem.m, problem.n, [&](std::size_t j, std::size_t i) { return problem.score(i, j); },
                  rows_b, scores_b),
              "top_k of b, k " + std::to_string(k) + ", " + problem.what);
}

struct Logs {
    std::vector<double> rows, cols;
};

Logs logs_of(const Operand& a, const Operand& b, double scale, std::size_t threads) {
    Logs logs{std::vector<double>(a.n), std::vector<double>(b.n)};
    Work work;
    check(log_sum_exp(a, b, scale, logs.rows.data(), logs.cols.data(), threads, {}, work), "log_sum_exp");
    return logs;
}

/// Of scores that are numbers, in long double with the peak apart.
Logs exact_logs(const std::vector<float>& scores, std::size_t n, std::size_t m, double scale) {
    const auto log_of = [&](std::size_t count, const auto& score_at) {
        long double peak = -static_cast<long double>(infinity), sum = 0;
        for (std::size_t i = 0; i < count; ++i)
            if (std::isfinite(score_at(i)))
                peak =
                    std::max(peak, static_cast<long double>(scale) * static_cast<long double>(score_at(i)));
        for (std::size_t i = 0; i < count; ++i)
            if (std::isfinite(score_at(i)))
                sum +=
                    std::exp(static_cast<long double>(scale) * static_cast<long double>(score_at(i)) - peak);
        return static_cast<double>(peak + std::log(sum));
    };
    Logs logs{std::vector<double>(n), std::vector<double>(m)};
    for (std::size_t i = 0; i < n; ++i)
        logs.rows[i] = log_of(m, [&](std::size_t j) { return scores[i * m + j]; });
    for (std::size_t j = 0; j < m; ++j)
        logs.cols[j] = log_of(n, [&](std::size_t i) { return scores[i * m + j]; });
    return logs;
}

/// 1e-12: a series to 1e-14, and the rounding of up to 5,000 additions, most of which goes both ways.
bool near(const std::vector<double>& actual, const std::vector<double>& expected) {
    for (std::size_t i = 0; i < actual.size(); ++i)
        if (!(actual[i] == expected[i] ||
              std::abs(actual[i] - expected[i]) <= 1e-12 * std::max(1.0, std::abs(expected[i]))))
            return false;
    return true;
}

bool same_bits(const std::vector<double>& x, const std::vector<double>& y) {
    return x.size() == y.size() && same_bytes(x.data(), y.data(), x.size());
}

void check_log_sum_exp(const Problem& problem, double scale, std::size_t threads) {
    const Operand& b = problem.self() ? problem.a : *problem.b;
    const auto actual = logs_of(problem.a, b, scale, threads);
    const auto expected = exact_logs(problem.scores, problem.n, problem.m, scale);
    check(near(actual.rows, expected.rows) && near(actual.cols, expected.cols),
          "log_sum_exp, scale " + std::to_string(scale) + ", " + problem.what);
}

void check_everything(const Problem& problem, std::size_t threads) {
    for (const float threshold : {problem.threshold(), 2e30f}) {
        if (threshold == 2e30f && problem.a.d > 3) break;  // nothing passes, whatever the dimension
        check_pairs_above(problem, threshold, threads);
        check_forest_above(problem, threshold, threads);
        check_count_above(problem, threshold, threads);
        check_max_earlier(problem, threshold, threads);
    }
    for (const std::size_t k : {std::size_t{3}, problem.m + 2}) check_top_k(problem, k, threads);
    check_log_sum_exp(problem, 20.0, threads);
}

void questions_equal_brute_force() {
    std::size_t threads = 0;
    const std::size_t n = 67, m = 43;
    for (const Element element : elements) {
        for (const std::size_t d : {1, 3, 16, 17, 64, 511}) {
            if (active_isa() == Isa::scalar && d > 64 && element != Element::float32) continue;
            const Rows x(hard_rows(n, d, element, 11), n, d, element, 5),
                y(hard_rows(m, d, element, 12), m, d, element, 0);
            const auto screening = random_screening(d, 13);
            for (const Metric metric : metrics) {
                // Sanitized scalar code takes a minute for each of these; what they share with others is
                // tested there.
                if (metric != Metric::cosine && d > (active_isa() == Isa::scalar ? 17 : 64)) continue;
                const auto own = similarities(x, x, metric), cross = similarities(x, y, metric);
                for (const int prepared_as : {0, 1, 2}) {
                    threads = threads % 4 + 1;
                    const Screening* used = prepared_as == 1 ? screening.get() : nullptr;
                    const Precision precision = prepared_as == 2 ? Precision::float32 : Precision::exact;
                    const auto a = prepared(x, metric, used, precision, threads),
                               b = prepared(y, metric, used, precision, threads);
                    const std::string what = std::string(element_names[static_cast<int>(element)]) + ", " +
                                             metric_names[static_cast<int>(metric)] + ", d " +
                                             std::to_string(d) +
                                             (prepared_as == 1   ? ", screening"
                                              : prepared_as == 2 ? ", float32"
                                                                 : "");
                    check_everything({*a, nullptr, n, n, own, what + ", self"}, threads);
                    check_everything({*a, b.get(), n, m, cross, what}, threads);
                }
            }
        }
    }
}

/// Several blocks, so that threads meet: with themselves and others, clumps included.
void questions_of_many_blocks_equal_brute_force() {
    const std::size_t n = 803, m = 500, d = 17;
    for (const Metric metric : {Metric::cosine, Metric::l2}) {
        const Rows x(hard_rows(n, d, Element::bfloat16, 14), n, d, Element::bfloat16, 0),
            y(hard_rows(m, d, Element::bfloat16, 15), m, d, Element::bfloat16, 0);
        const auto screening = random_screening(d, 16);
        const auto a = prepared(x, metric, screening.get(), Precision::exact, 4),
                   b = prepared(y, metric, screening.get(), Precision::exact, 4);
        const Problem self{*a, nullptr, n, n, similarities(x, x, metric), "many blocks, self"},
            cross{*a, b.get(), n, m, similarities(x, y, metric), "many blocks"};
        for (const std::size_t threads : {1, 4})
            for (const Problem* problem : {&self, &cross}) {
                const float threshold = problem->threshold();
                check_pairs_above(*problem, threshold, threads);
                check_forest_above(*problem, threshold, threads);
                check_count_above(*problem, threshold, threads);
                check_max_earlier(*problem, threshold, threads);
                check_top_k(*problem, 9, threads);
            }
    }
}

void some_rows_of_a_matrix() {
    const std::size_t n = 90, d = 20;
    const Rows x(hard_rows(n, d, Element::float32, 17), n, d, Element::float32, 4);
    std::vector<std::int64_t> rows;
    for (std::size_t i = 0; i < n; ++i)
        if (i % 3 != 1) rows.push_back(static_cast<std::int64_t>(i));
    const auto screening = random_screening(d, 18);
    const auto a = Operand::prepare(x.matrix(), d, Element::float32, rows.data(), rows.size(), Metric::cosine,
                                    screening.get(), Precision::exact, 2, {});
    const auto scores = similarities(x, x, Metric::cosine);
    std::vector<Pair> pairs, expected;
    for (const std::int64_t i : rows)
        for (const std::int64_t j : rows)
            if (i < j && scores[static_cast<std::size_t>(i) * n + static_cast<std::size_t>(j)] >= 0.5f)
                expected.push_back(
                    {i, j, scores[static_cast<std::size_t>(i) * n + static_cast<std::size_t>(j)]});
    bool too_many = false;
    Work work;
    pairs_above(*a, nullptr, 0.5f, 10'000, pairs, too_many, 2, {}, work);
    check(!expected.empty() &&
              std::equal(pairs.begin(), pairs.end(), expected.begin(), expected.end(), same_pair),
          "pairs are rows of the matrix");
    std::vector<std::int64_t> nearest(rows.size());
    std::vector<float> known(rows.size());
    top_k(*a, nullptr, 1, nearest.data(), known.data(), nullptr, nullptr, 2, {}, work);
    for (std::size_t at = 0; at < rows.size(); ++at) {
        std::int64_t best = -1;
        for (const std::int64_t j : rows) {
            const auto score = [&](std::int64_t row) {
                return scores[static_cast<std::size_t>(rows[at]) * n + static_cast<std::size_t>(row)];
            };
            if (j != rows[at] && (best < 0 || score(j) > score(best))) best = j;
        }
        check(nearest[at] == best, "the nearest is a row of the matrix");
    }
}

void no_rows_and_no_coordinates() {
    for (const std::size_t n : {0, 1, 2})
        for (const std::size_t d : {0, 1, 5})
            for (const Metric metric : {Metric::inner_product, Metric::l2}) {
                const Rows x(std::vector<float>(n * d, 1.0f), n, d, Element::float32, 0);
                const auto a = prepared(x, metric, nullptr, Precision::exact, 2);
                const auto scores = similarities(x, x, metric);
                check_everything({*a, nullptr, n, n, scores, "n " + std::to_string(n)}, 2);
                check_everything({*a, a.get(), n, n, scores, "n " + std::to_string(n)}, 2);
            }
}

void copies_are_found() {
    const std::size_t n = 200, d = 37;
    for (const Element element : elements) {
        const Rows x(hard_rows(n, d, element, 19), n, d, element, 1);
        std::vector<std::int64_t> copy_of(n);
        check(find_copies(x.matrix(), n, d, element, copy_of.data(), 3, {}), "copies");
        for (std::size_t i = 0; i < n; ++i) {
            std::int64_t expected = -1;
            for (std::size_t j = 0; j < i && expected < 0; ++j) {
                const Matrix rows = x.matrix();
                const auto* base = static_cast<const char*>(rows.data);
                if (std::memcmp(base + static_cast<std::ptrdiff_t>(i) * rows.row_stride,
                                base + static_cast<std::ptrdiff_t>(j) * rows.row_stride,
                                d * rowwise::element_bytes(element)) == 0)
                    expected = static_cast<std::int64_t>(j);
            }
            check(copy_of[i] == expected,
                  "copy_of, " + std::string(element_names[static_cast<int>(element)]));
        }
    }
}

// Sums of exponentials.

/// True on the first instruction set, whose bits others must equal.
bool first_of(const std::string& key, const Logs& logs) {
    static std::map<std::string, Logs> known;
    const auto [at, first] = known.emplace(key, logs);
    check(first || (same_bits(at->second.rows, logs.rows) && same_bits(at->second.cols, logs.cols)),
          "bits of another instruction set, " + key);
    return first;
}

void log_sum_exp_over_blocks() {
    const std::size_t n = 4200, m = 390, d = 5;
    const Rows x(hard_rows(n, d, Element::float16, 20), n, d, Element::float16, 0),
        y(hard_rows(m, d, Element::float16, 21), m, d, Element::float16, 2);
    const auto screening = random_screening(d, 22);
    for (const Metric metric : metrics) {
        const auto scores = similarities(x, y, metric);
        const auto a = prepared(x, metric, nullptr, Precision::exact, 2),
                   b = prepared(y, metric, nullptr, Precision::exact, 2);
        const auto clustered_a = prepared(x, metric, screening.get(), Precision::exact, 2),
                   clustered_b = prepared(y, metric, screening.get(), Precision::exact, 2);
        check(!std::is_sorted(clustered_a->order.begin(), clustered_a->order.end()), "an order by cluster");
        const double scale = metric == Metric::cosine ? 1000.0 : metric == Metric::l2 ? 1.0 : -30.0;
        const std::string what = metric_names[static_cast<int>(metric)];
        const auto one = logs_of(*a, *b, scale, 1);
        if (first_of(what, one)) {
            const auto expected = exact_logs(scores, n, m, scale);
            check(near(one.rows, expected.rows) && near(one.cols, expected.cols), what);
        }
        const auto many = logs_of(*a, *b, scale, 4), swapped = logs_of(*b, *a, scale, 3),
                   clustered = logs_of(*clustered_a, *clustered_b, scale, 2);
        check(same_bits(many.rows, one.rows) && same_bits(many.cols, one.cols), "threads, " + what);
        check(same_bits(swapped.cols, one.rows) && same_bits(swapped.rows, one.cols), "sides, " + what);
        check(same_bits(clustered.rows, one.rows) && same_bits(clustered.cols, one.cols), "order, " + what);
    }
}

/// Inner products from 1e-16 to 1e36, in orders that raise a sum's unit again and again, or once, or at
/// random.
void log_sum_exp_of_any_size() {
    const std::size_t n = 500, m = 130, d = 2;
    std::mt19937 random(23);
    std::normal_distribution<float> normal;
    for (const int order : {1, -1, 0}) {
        std::vector<float> x(n * d), y(m * d);
        const auto fill = [&](std::vector<float>& values, std::size_t rows, double from, double to) {
            for (std::size_t i = 0; i < rows; ++i) {
                const double share =
                    static_cast<double>(order == 0 ? random() % rows : i) / static_cast<double>(rows);
                const double power = order < 0 ? to + (from - to) * share : from + (to - from) * share;
                for (std::size_t j = 0; j < d; ++j)
                    values[i * d + j] = normal(random) * static_cast<float>(std::pow(10.0, power));
            }
        };
        fill(x, n, -8, 8), fill(y, m, -8, 8);
        if (order == 0) fill(x, n, 8, 18), fill(y, m, 8, 18);
        const Rows left(x, n, d, Element::float32, 0), right(y, m, d, Element::float32, 0);
        const auto a = prepared(left, Metric::inner_product, nullptr, Precision::exact, 1),
                   b = prepared(right, Metric::inner_product, nullptr, Precision::exact, 1);
        const auto scores = similarities(left, right, Metric::inner_product);
        for (const double scale : {1.0, 100.0, 1000.0, -1000.0, 0.0}) {
            const auto actual = logs_of(*a, *b, scale, 2);
            const std::string what =
                "any size, order " + std::to_string(order) + ", scale " + std::to_string(scale);
            if (!first_of(what, actual)) continue;
            const auto expected = exact_logs(scores, n, m, scale);
            check(near(actual.rows, expected.rows) && near(actual.cols, expected.cols), what);
        }
    }
}

// Stopping.

void a_poll_stops_a_join() {
    const std::size_t n = 20'000, d = 64;
    std::vector<float> values(n * d);
    std::uint32_t state = 1;
    for (float& value : values)
        state = state * 1664525u + 1013904223u, value = static_cast<float>(state >> 8) * 0x1p-24f - 0.5f;
    const Rows x(values, n, d, Element::float32, 0);
    std::size_t asked = 0;
    bool inside = true;
    const Poll poll = [&](double done) {
        ++asked, inside &= done >= 0.0 && done <= 1.0;
        return true;
    };
    const auto a = prepared(x, Metric::cosine, nullptr, Precision::float32, 2);
    std::vector<Pair> pairs;
    std::vector<std::int64_t> counts(n), rows(2 * n);
    std::vector<double> logs(n), logs_b(n);
    std::vector<float> scores(2 * n);
    bool too_many = false;
    Work work;
    check(!pairs_above(*a, nullptr, 2.0f, 1, pairs, too_many, 2, poll, work), "pairs_above stops");
    check(!count_above(*a, nullptr, 2.0f, nullptr, nullptr, counts.data(), nullptr, 2, poll, work),
          "count_above stops");
    check(!top_k(*a, nullptr, 2, rows.data(), scores.data(), nullptr, nullptr, 2, poll, work), "top_k stops");
    check(!log_sum_exp(*a, *a, 1.0, logs.data(), logs_b.data(), 2, poll, work), "log_sum_exp stops");
    check(asked == 4 && inside, "polls, with a share of the work");
}

const Test tests[] = {
    {"fused_similarity: screen", screen_equals_a_plain_loop},
    {"fused_similarity: bound", bound_says_what_reaches_its_limit},
    {"fused_similarity: canonical tile", canonical_tile_equals_rowwise},
    {"fused_similarity: groups and transposed rows", groups_are_copied_and_rows_transposed},
    {"fused_similarity: rotations and projections", rotations_and_projections_are_what_they_say},
    {"fused_similarity: quantised rows", quantised_rows_say_their_errors},
    {"fused_similarity: scores of a tile", scores_of_a_tile_are_canonical},
    {"fused_similarity: cosines next to a tie", cosines_next_to_a_tie_are_canonical},
    {"fused_similarity: exponentials of a tile", exponentials_have_the_same_bits_everywhere},
    {"fused_similarity: proven bounds", proven_bounds_hold},
    {"fused_similarity: questions", questions_equal_brute_force},
    {"fused_similarity: threads, questions of many blocks", questions_of_many_blocks_equal_brute_force},
    {"fused_similarity: some rows of a matrix", some_rows_of_a_matrix},
    {"fused_similarity: no rows, no coordinates", no_rows_and_no_coordinates},
    {"fused_similarity: copies", copies_are_found},
    {"fused_similarity: threads, log_sum_exp over blocks", log_sum_exp_over_blocks},
    {"fused_similarity: log_sum_exp of any size", log_sum_exp_of_any_size},
    {"fused_similarity: threads, a poll stops them", a_poll_stops_a_join}};

}  // namespace
}  // namespace pycurate::tests
