#include "fused_similarity_problems.h"

namespace pycurate::tests {
namespace {

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

/// Equal to Kruskal's algorithm on all pairs, edge by edge.
void check_spanning_forest_above(const Problem& problem, float floor, std::size_t threads) {
    const std::size_t offset = problem.self() ? 0 : problem.n,
                      nodes = problem.n + (problem.self() ? 0 : problem.m);
    std::vector<Pair> all, found;
    problem.each_pair([&](std::size_t i, std::size_t j, float score) {
        if (score >= floor)
            all.push_back({static_cast<std::int64_t>(i), static_cast<std::int64_t>(j), score});
    });
    std::stable_sort(all.begin(), all.end(),
                     [](const Pair& x, const Pair& y) { return x.similarity > y.similarity; });
    std::vector<std::size_t> labels(nodes);
    std::iota(labels.begin(), labels.end(), std::size_t{0});
    std::vector<Pair> expected;
    for (const Pair& pair : all) {
        const std::size_t x = labels[static_cast<std::size_t>(pair.row)],
                          y = labels[static_cast<std::size_t>(pair.col) + offset];
        if (x == y) continue;
        expected.push_back(pair);
        std::replace(labels.begin(), labels.end(), y, x);
    }
    Work work;
    check(spanning_forest_above(problem.a, problem.b, floor, found, threads, {}, work), "forest");
    check(std::equal(found.begin(), found.end(), expected.begin(), expected.end(), same_pair),
          "spanning_forest_above, floor " + std::to_string(floor) + ", " + problem.what);
    for (Pair& pair : all) pair.col += static_cast<std::int64_t>(offset);
    for (Pair& pair : expected) pair.col += static_cast<std::int64_t>(offset);
    std::reverse(all.begin(), all.end());
    heaviest_forest(nodes, all);
    check(std::equal(all.begin(), all.end(), expected.begin(), expected.end(), same_pair),
          "heaviest_forest, " + problem.what);
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
        check_spanning_forest_above(problem, threshold, threads);
        check_count_above(problem, threshold, threads);
        check_max_earlier(problem, threshold, threads);
    }
    check_spanning_forest_above(problem, -infinity, threads);
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

const Test tests[] = {
    {"fused_similarity: questions", questions_equal_brute_force},
    {"fused_similarity: threads, questions of many blocks", questions_of_many_blocks_equal_brute_force},
    {"fused_similarity: some rows of a matrix", some_rows_of_a_matrix},
    {"fused_similarity: no rows, no coordinates", no_rows_and_no_coordinates},
    {"fused_similarity: copies", copies_are_found}};

}  // namespace
}  // namespace pycurate::tests
