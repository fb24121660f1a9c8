// From texts to hashed shingles, to their sets and to their signatures: one pass over the bytes.
#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "common/thread_pool.h"
#include "kernels/caption/whitespace.h"
#include "kernels/ngram/hashes.h"
#include "kernels/ngram/ngram.h"

namespace pycurate::ngram {
namespace {

constexpr std::size_t chunk_rows = 1024;  // rows of a task

/// What a byte may begin.
enum class Byte : std::uint8_t { other, space, maybe_space };

constexpr std::array<Byte, 256> make_bytes() {
    std::array<Byte, 256> bytes{};
    for (std::size_t c = 0x09; c <= 0x0D; ++c) bytes[c] = Byte::space;
    for (std::size_t c = 0x1C; c <= 0x20; ++c) bytes[c] = Byte::space;
    bytes[0xC2] = bytes[0xE1] = bytes[0xE2] = bytes[0xE3] = Byte::maybe_space;
    return bytes;
}

constexpr std::array<Byte, 256> bytes_table = make_bytes();

/// ASCII capitals of 8 bytes as small letters.
std::uint64_t small_letters(std::uint64_t bytes) noexcept {
    constexpr std::uint64_t each = 0x0101'0101'0101'0101u;
    const std::uint64_t low = bytes & 0x7f * each;
    const std::uint64_t capital =
        ((low + (0x80 - 'A') * each) ^ (low + (0x7f - 'Z') * each)) & ~bytes & 0x80 * each;
    return bytes | capital >> 2;
}

/// The shingles of one text after the other, in memory that is reused.
class Shingler {
  public:
    Shingler(const Texts& texts, const Shape& shape)
        : texts_(texts), shape_(shape), end_(texts.data + texts.size) {}

    /// Hashes of the shingles of text i, by their first token and then by their length.
    const std::vector<std::uint64_t>& of(std::size_t i) {
        const std::size_t begin = texts_.begin(i), end = texts_.begin(i + 1);
        tokens_.clear();
        shingles_.clear();
        if (shape_.words)
            split(texts_.data + begin, end - begin);
        else if (shape_.fold)
            folded_characters(texts_.data + begin, end - begin);
        else
            characters(texts_.data + begin, end - begin);
        if (tokens_.empty()) return shingles_;
        const std::size_t count = tokens_.size();
        const std::size_t lowest = std::min(shape_.lowest, count), highest = std::min(shape_.highest, count);
        shingles_.reserve((count - lowest + 1) * (highest - lowest + 1));
        for (std::size_t first = 0; first + lowest <= count; ++first) {
            std::uint64_t polynomial = 0;
            const std::size_t most = std::min(highest, count - first);
            for (std::size_t n = 1; n <= most; ++n) {
                polynomial = polynomial * base + tokens_[first + n - 1];
                if (n >= lowest) shingles_.push_back(mix(polynomial));
            }
        }
        return shingles_;
    }

  private:
    std::uint64_t eight(const std::uint8_t* p, std::size_t size) const noexcept {
        std::uint64_t bytes = 0;
        if (size >= 8) {
            std::memcpy(&bytes, p, 8);
        } else if (end_ - p >= 8) {
            std::memcpy(&bytes, p, 8);
            bytes &= ~(~std::uint64_t{0} << 8 * size);
        } else {
            std::memcpy(&bytes, p, size);
        }
        return shape_.fold ? small_letters(bytes) : bytes;
    }
    /// size >= 1.
    void add_token(const std::uint8_t* p, std::size_t size) {
        std::uint64_t hash = size * length_factor;
        for (std::size_t i = 0; i < size; i += 8) hash = mix(hash ^ eight(p + i, size - i));
        tokens_.push_back(hash);
    }
    /// Runs of characters other than whitespace, as Python's str.split() finds them.
    void split(const std::uint8_t* text, std::size_t size) {
        std::size_t begin = 0, i = 0;
        while (i < size) {
            const Byte kind = bytes_table[text[i]];
            const std::size_t space = kind == Byte::other   ? 0
                                      : kind == Byte::space ? 1
                                                            : caption::whitespace(text + i, size - i);
            if (space == 0) {
                ++i;
                continue;
            }
            if (i > begin) add_token(text + begin, i - begin);
            begin = i += space;
        }
        if (size > begin) add_token(text + begin, size - begin);
    }
    /// A byte that continues no character begins one; those that follow it and continue belong to it.
    std::size_t character(const std::uint8_t* text, std::size_t i, std::size_t size) const noexcept {
        std::size_t next = i + 1;
        while (next < size && (text[next] & 0xC0) == 0x80) ++next;
        return next;
    }
    void characters(const std::uint8_t* text, std::size_t size) {
        for (std::size_t i = 0; i < size;) {
            const std::size_t next = character(text, i, size);
            add_token(text + i, next - i);
            i = next;
        }
    }
    void folded_characters(const std::uint8_t* text, std::size_t size) {
        static constexpr std::uint8_t blank = ' ';
        bool pending = false;
        for (std::size_t i = 0; i < size;) {
            if (bytes_table[text[i]] == Byte::space) {
                pending = !tokens_.empty();
                ++i;
                continue;
            }
            if (pending) tokens_.push_back(mix(length_factor ^ blank));
            pending = false;
            const std::size_t next = character(text, i, size);
            add_token(text + i, next - i);
            i = next;
        }
    }

    const Texts& texts_;
    const Shape& shape_;
    const std::uint8_t* end_;
    std::vector<std::uint64_t> tokens_, shingles_;
};

std::size_t chunks_of(std::size_t n) noexcept { return (n + chunk_rows - 1) / chunk_rows; }

}  // namespace

bool sign_texts(const Texts& texts, const Shape& shape, const Permutations& permutations,
                std::uint32_t* signatures, std::int64_t* counts, std::size_t threads, const Poll& poll) {
    const auto min_hash = active_kernels().min_hash;
    return parallel_for(
        chunks_of(texts.n), threads,
        [&](std::size_t chunk) {
            Shingler shingler(texts, shape);
            for (std::size_t i = chunk * chunk_rows; i < std::min(texts.n, (chunk + 1) * chunk_rows); ++i) {
                const auto& shingles = shingler.of(i);
                counts[i] = static_cast<std::int64_t>(shingles.size());
                min_hash(shingles.data(), shingles.size(), permutations.a, permutations.b, permutations.count,
                         signatures + i * permutations.count);
            }
        },
        poll);
}

bool shingle_sets(const Texts& texts, const Shape& shape, std::vector<std::vector<std::uint64_t>>& chunks,
                  std::int64_t* starts, std::size_t threads, const Poll& poll) {
    chunks.resize(chunks_of(texts.n));
    const bool complete = parallel_for(
        chunks.size(), threads,
        [&](std::size_t chunk) {
            Shingler shingler(texts, shape);
            std::vector<std::uint64_t> set;
            auto& out = chunks[chunk];
            for (std::size_t i = chunk * chunk_rows; i < std::min(texts.n, (chunk + 1) * chunk_rows); ++i) {
                set = shingler.of(i);
                std::sort(set.begin(), set.end());
                const auto end = std::unique(set.begin(), set.end());
                out.insert(out.end(), set.begin(), end);
                starts[i + 1] = end - set.begin();
            }
        },
        poll);
    starts[0] = 0;
    if (complete) std::partial_sum(starts, starts + texts.n + 1, starts);
    return complete;
}

bool sign_sets(const Sets& sets, const std::int64_t* rows, std::size_t g, const Permutations& permutations,
               std::uint32_t* signatures, std::size_t threads, const Poll& poll) {
    const auto min_hash = active_kernels().min_hash;
    return parallel_for(
        chunks_of(g), threads,
        [&](std::size_t chunk) {
            for (std::size_t i = chunk * chunk_rows; i < std::min(g, (chunk + 1) * chunk_rows); ++i) {
                const auto row = static_cast<std::size_t>(rows[i]);
                min_hash(sets.at(row), sets.size(row), permutations.a, permutations.b, permutations.count,
                         signatures + i * permutations.count);
            }
        },
        poll);
}

}  // namespace pycurate::ngram
