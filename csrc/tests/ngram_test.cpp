#include "kernels/ngram/ngram.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "check.h"

namespace pycurate::tests {
namespace {

void signatures_equal_the_scalar_twin() {
    std::mt19937_64 engine(1);
    for (std::size_t permutations = 0; permutations < 70; ++permutations)
        for (const std::size_t count : {0, 1, 2, 5, 33}) {
            const auto hashes = exact_buffer<std::uint64_t>(count);
            const auto a = exact_buffer<std::uint64_t>(permutations);
            const auto b = exact_buffer<std::uint64_t>(permutations);
            for (std::size_t i = 0; i < count; ++i) hashes[i] = engine();
            for (std::size_t j = 0; j < permutations; ++j) a[j] = engine(), b[j] = engine();
            const auto out = exact_buffer<std::uint32_t>(permutations);
            const auto expected = exact_buffer<std::uint32_t>(permutations);
            ngram::active_kernels().min_hash(hashes.get(), count, a.get(), b.get(), permutations, out.get());
            ngram::scalar.min_hash(hashes.get(), count, a.get(), b.get(), permutations, expected.get());
            check(std::memcmp(out.get(), expected.get(), permutations * sizeof(std::uint32_t)) == 0,
                  std::to_string(permutations) + " permutations of " + std::to_string(count) + " hashes");
        }
}

/// The sets of texts that lie on the heap without a byte to spare, in any way of taking them apart.
void no_byte_beyond_the_texts_is_read() {
    std::mt19937 engine(2);
    const std::string pieces[] = {
        "a", " ", "B", "\xC3\xA9", "\xE3\x80\x80", "\xE3", "\x80", "wordofmorethaneight"};
    for (int round = 0; round < 500; ++round) {
        std::string text;
        std::vector<std::int32_t> offsets{0};
        for (std::size_t row = 0; row < 3; ++row) {
            for (std::size_t i = engine() % 12; i > 0; --i) text += pieces[engine() % std::size(pieces)];
            offsets.push_back(static_cast<std::int32_t>(text.size()));
        }
        const auto bytes = exact_buffer<std::uint8_t>(text.size());
        std::memcpy(bytes.get(), text.data(), text.size());
        const ngram::Texts texts{bytes.get(), text.size(), offsets.data(), nullptr, 3};
        for (const bool words : {false, true})
            for (const bool fold : {false, true}) {
                std::vector<std::vector<std::uint64_t>> chunks;
                std::int64_t starts[4];
                check(ngram::shingle_sets(texts, {1, 3, words, fold}, chunks, starts, 1, {}), "complete");
                check(static_cast<std::size_t>(starts[3]) == chunks[0].size(), "sizes add up");
            }
    }
}

void jaccard_of_small_sets() {
    const std::uint64_t x[] = {1, 3, 5, 7}, y[] = {3, 4, 5};
    check(ngram::jaccard(x, 4, y, 3) == 0.4f, "2 of 5");
    check(ngram::jaccard(x, 4, x, 4) == 1.0f, "a set and itself");
    check(ngram::jaccard(x, 0, y, 0) == 0.0f, "nothing and nothing");
    check(ngram::jaccard(x, 4, y, 0) == 0.0f, "something and nothing");
}

/// With one value a band and many bands no pair of these is missed.
void similar_sets_are_those_of_trying_each() {
    std::mt19937_64 engine(3);
    constexpr std::size_t n = 120, bands = 256;
    std::vector<std::uint64_t> hashes, a(bands), b(bands);
    std::vector<std::int64_t> starts{0}, rows, order;
    for (std::size_t i = 0; i < n; ++i) {
        for (std::uint64_t k = 1; k <= 6; ++k)
            if (engine() % 2 == 0) hashes.push_back(k * 0x9e3779b97f4a7c15u >> 3);
        std::sort(hashes.begin() + starts.back(), hashes.end());
        starts.push_back(static_cast<std::int64_t>(hashes.size()));
    }
    for (std::size_t j = 0; j < bands; ++j) a[j] = engine(), b[j] = engine();
    const ngram::Sets sets{hashes.data(), starts.data(), n};
    std::vector<std::int64_t> copy_of(n), labels(n);
    check(ngram::find_copies(sets, copy_of.data(), 2, {}), "complete");
    for (std::size_t i = 0; i < n; ++i)
        if (copy_of[i] < 0 && sets.size(i) > 0) rows.push_back(static_cast<std::int64_t>(i));
    const std::size_t g = rows.size();
    std::vector<std::uint32_t> signatures(g * bands);
    check(ngram::sign_sets(sets, rows.data(), g, {a.data(), b.data(), bands}, signatures.data(), 2, {}),
          "complete");
    const ngram::Candidates candidates{sets, rows.data(), g, signatures.data(), {bands, 1}, 0.6f};
    const auto similar = [&](std::size_t i, std::size_t j) {
        const auto x = static_cast<std::size_t>(rows[i]), y = static_cast<std::size_t>(rows[j]);
        return ngram::jaccard(sets.at(x), sets.size(x), sets.at(y), sets.size(y)) >= 0.6f;
    };
    std::size_t expected = 0;
    for (std::size_t i = 0; i < g; ++i)
        for (std::size_t j = i + 1; j < g; ++j) expected += similar(i, j);
    std::vector<ngram::Pair> pairs;
    bool too_many = false;
    check(ngram::pairs_above(candidates, 10000, pairs, too_many, 2, {}) && !too_many, "complete");
    check(pairs.size() == expected && expected > 50, "every pair once");
    check(ngram::components_above(candidates, labels.data(), 2, {}), "complete");
    for (const auto& pair : pairs)
        check(labels[static_cast<std::size_t>(pair.row)] == labels[static_cast<std::size_t>(pair.col)],
              "linked");
    for (std::size_t i = g; i-- > 0;) order.push_back(static_cast<std::int64_t>(i));
    std::vector<std::int64_t> keeper(g);
    std::vector<float> similarity(g);
    check(ngram::greedy(candidates, order.data(), keeper.data(), similarity.data(), 2, {}), "complete");
    for (std::size_t i = 0; i < g; ++i) {
        bool near = false;
        for (std::size_t j = i + 1; j < g; ++j) near |= keeper[j] < 0 && similar(i, j);
        check((keeper[i] >= 0) == near, "removed by a kept one");
    }
}

void a_poll_stops_the_work() {
    std::vector<std::int64_t> offsets(1 << 20);
    for (std::size_t i = 0; i < offsets.size(); ++i) offsets[i] = static_cast<std::int64_t>(2 * i);
    const std::string text(2 * offsets.size(), 'x');
    const ngram::Texts texts{reinterpret_cast<const std::uint8_t*>(text.data()), text.size(), nullptr,
                             offsets.data(), offsets.size() - 1};
    const std::vector<std::uint64_t> factors(4096, 3);
    std::vector<std::uint32_t> signatures(texts.n * 16);
    std::vector<std::int64_t> counts(texts.n);
    int asked = 0;
    const bool complete = ngram::sign_texts(texts, {1, 1, true, true}, {factors.data(), factors.data(), 16},
                                            signatures.data(), counts.data(), 1, [&] { return ++asked > 0; });
    check(complete == (asked == 0), "stopped when asked to");
}

const Test tests[] = {
    {"ngram: signatures equal the scalar twin", signatures_equal_the_scalar_twin},
    {"ngram: no byte beyond the texts is read", no_byte_beyond_the_texts_is_read},
    {"ngram: Jaccard of small sets", jaccard_of_small_sets},
    {"ngram: similar sets are those of trying each", similar_sets_are_those_of_trying_each},
    {"ngram: a poll stops the work", a_poll_stops_the_work},
};

}  // namespace
}  // namespace pycurate::tests
