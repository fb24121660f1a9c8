#include "kernels/ngram/ngram.h"

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
    {"ngram: a poll stops the work", a_poll_stops_the_work},
};

}  // namespace
}  // namespace pycurate::tests
