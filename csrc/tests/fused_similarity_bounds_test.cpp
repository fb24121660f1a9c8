#include "fused_similarity_problems.h"

namespace pycurate::tests {
namespace {

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
                a.kernels->bound(sums.data(), stage_a.group_share.data() + row, nullptr,
                                 {a.factors.data() + row, a.biases.data() + row},
                                 {b.factors.data() + col, b.biases.data() + col},
                                 static_cast<float>(stage_a.unit), static_cast<float>(stage_a.extra),
                                 float_limits.data(), nullptr, upper.data(), masks, nullptr);
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

const Test tests[] = {{"fused_similarity: proven bounds", proven_bounds_hold},
                      {"fused_similarity: threads, log_sum_exp over blocks", log_sum_exp_over_blocks},
                      {"fused_similarity: log_sum_exp of any size", log_sum_exp_of_any_size},
                      {"fused_similarity: threads, a poll stops them", a_poll_stops_a_join}};

}  // namespace
}  // namespace pycurate::tests
