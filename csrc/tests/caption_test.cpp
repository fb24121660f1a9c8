#include "kernels/caption/caption.h"

#include <cstring>
#include <random>
#include <string>

#include "check.h"

namespace pycurate::tests {
namespace {

/// On the heap, without a byte to spare.
std::size_t words(const std::string& text) {
    const auto bytes = exact_buffer<std::uint8_t>(text.size());
    std::memcpy(bytes.get(), text.data(), text.size());
    return caption::active_kernels().count_words(bytes.get(), text.size());
}

void words_of_every_length() {
    for (std::size_t size = 0; size <= 200; ++size) {
        check(words(std::string(size, 'x')) == (size > 0), "one word of " + std::to_string(size));
        check(words(std::string(size, ' ')) == 0, "no word in " + std::to_string(size) + " spaces");
        std::string alternating;
        for (std::size_t i = 0; i < size; ++i) alternating += i % 2 == 0 ? 'x' : ' ';
        check(words(alternating) == (size + 1) / 2, "every second of " + std::to_string(size));
    }
}

void whitespace_that_is_cut_off_is_part_of_a_word() {
    for (const char* text : {"\xC2", "\xE2\x80", "\xE3", "\xE1\x9A"})
        for (std::size_t before :
             {std::size_t{0}, std::size_t{31}, std::size_t{32}, std::size_t{63}, std::size_t{64}})
            check(words(std::string(before, ' ') + text) == 1, "a cut character is a word");
}

void random_bytes_equal_the_scalar_twin() {
    std::mt19937 engine(1);
    const std::string pieces[] = {
        "a",           " ", "\t", "\xC3\xA9", "\xC2\xA0", "\xE3\x80\x80", "\xE4\xB8\xAD", "\xE2\x80\x8B",
        "\xE2\x80\x83"};
    for (int round = 0; round < 2000; ++round) {
        std::string text;
        const std::size_t common = round % 2 == 0 ? 4 : std::size(pieces);
        for (std::size_t i = engine() % 150; i > 0; --i) text += pieces[engine() % common];
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
        check(words(text) == caption::scalar.count_words(bytes, text.size()), "random text");
    }
}

const Test tests[] = {
    {"caption: words of every length", words_of_every_length},
    {"caption: whitespace cut off by the end", whitespace_that_is_cut_off_is_part_of_a_word},
    {"caption: random texts equal the scalar twin", random_bytes_equal_the_scalar_twin},
};

}  // namespace
}  // namespace pycurate::tests
