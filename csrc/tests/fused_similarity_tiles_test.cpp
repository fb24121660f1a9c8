#include "fused_similarity_problems.h"

namespace pycurate::tests {
namespace {

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
            const auto col_share =
                filled<std::int32_t>(panel_rows, [&] { return static_cast<int>(random() % 400'000u); });
            std::uint64_t masks[group_rows], near[group_rows];
            const auto ask = [&](const std::int32_t* share, float* out) {
                return kernels.bound(sums.data(), slack.data(), share, {factors_a.data(), biases_a.data()},
                                     {factors_b.data(), biases_b.data()}, unit, extra, row_limit.data(),
                                     with_columns ? col_limit.data() : nullptr, out, masks, near);
            };
            const bool any = ask(col_share.data(), upper.data());
            const std::vector<std::uint64_t> together(masks, masks + group_rows);
            auto alone = filled<float>(tile, [] { return 0; });
            check(ask(nullptr, alone.data()) == any && same_bytes(alone.data(), upper.data(), tile) &&
                      std::equal(together.begin(), together.end(), masks),
                  "the bound does not depend on whether estimates are asked for" + which);
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
                    const double estimate =
                        static_cast<double>(factors_a[r]) * factors_b[c] *
                            (static_cast<double>(unit) *
                             (static_cast<double>(sums[r * panel_rows + c]) - col_share[c])) +
                        biases_a[r] + biases_b[c];
                    const auto apart = [&](float limit) { return std::abs(estimate - limit) > 2e-6; };
                    const bool is_near =
                        !(estimate < row_limit[r]) || (with_columns && !(estimate < col_limit[c]));
                    if (apart(row_limit[r]) && apart(col_limit[c]))
                        check((near[r] >> c & 1u) == is_near, "estimate" + which);
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

const Test tests[] = {
    {"fused_similarity: screen", screen_equals_a_plain_loop},
    {"fused_similarity: bound", bound_says_what_reaches_its_limit},
    {"fused_similarity: canonical tile", canonical_tile_equals_rowwise},
    {"fused_similarity: groups and transposed rows", groups_are_copied_and_rows_transposed},
    {"fused_similarity: rotations and projections", rotations_and_projections_are_what_they_say},
    {"fused_similarity: quantised rows", quantised_rows_say_their_errors},
    {"fused_similarity: scores of a tile", scores_of_a_tile_are_canonical},
    {"fused_similarity: cosines next to a tie", cosines_next_to_a_tie_are_canonical},
    {"fused_similarity: exponentials of a tile", exponentials_have_the_same_bits_everywhere}};

}  // namespace
}  // namespace pycurate::tests
