#include "kernels/phash/phash.h"

#include <cstring>
#include <random>
#include <string>

#include "check.h"

namespace pycurate::tests {
namespace {

using namespace phash;

std::unique_ptr<std::uint8_t[]> random_bytes(std::size_t count, std::uint64_t seed) {
    std::mt19937_64 engine(seed);
    auto bytes = exact_buffer<std::uint8_t>(count);
    for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::uint8_t>(engine());
    return bytes;
}

/// Every length up to 70, on the heap without a byte to spare.
void lines_equal_the_scalar_twin() {
    for (std::size_t n = 0; n <= 70; ++n) {
        const auto rgb = random_bytes(3 * n, n), rgba = random_bytes(4 * n, n + 100);
        const auto grey = exact_buffer<std::uint8_t>(n), expected = exact_buffer<std::uint8_t>(n);
        const Kernels& kernels = active_kernels();
        kernels.grey_of_rgb(rgb.get(), n, grey.get());
        scalar.grey_of_rgb(rgb.get(), n, expected.get());
        check(std::memcmp(grey.get(), expected.get(), n) == 0, "grey of RGB, " + std::to_string(n));
        kernels.grey_of_rgba(rgba.get(), n, grey.get());
        scalar.grey_of_rgba(rgba.get(), n, expected.get());
        check(std::memcmp(grey.get(), expected.get(), n) == 0, "grey of RGBA, " + std::to_string(n));
        const auto sums = exact_buffer<std::uint32_t>(n), other = exact_buffer<std::uint32_t>(n);
        for (const std::uint32_t weight : {1u, 64u, 32767u}) {
            kernels.add_weighted(grey.get(), n, weight, sums.get());
            scalar.add_weighted(grey.get(), n, weight, other.get());
        }
        check(std::memcmp(sums.get(), other.get(), n * sizeof(std::uint32_t)) == 0,
              "weighted sums, " + std::to_string(n));
    }
}

void transforms_equal_the_scalar_twin() {
    std::mt19937_64 engine(1);
    for (const std::size_t count : {8u, 16u}) {
        const std::size_t size = 4 * count;
        const auto cells = exact_buffer<double>(size * size), cosines = exact_buffer<double>(size * count);
        for (std::size_t i = 0; i < size * size; ++i) cells[i] = static_cast<double>(engine() % 16321);
        for (std::size_t i = 0; i < size * count; ++i)
            cosines[i] = static_cast<double>(engine() % 16385) - 8192;
        const auto out = exact_buffer<double>(count * count), expected = exact_buffer<double>(count * count);
        active_kernels().transform(cells.get(), size, cosines.get(), count, out.get());
        scalar.transform(cells.get(), size, cosines.get(), count, expected.get());
        check(std::memcmp(out.get(), expected.get(), count * count * sizeof(double)) == 0,
              "transform to " + std::to_string(count));
    }
}

/// Sizes below, at and above the number of cells, rows apart by more than their pixels.
void pictures_of_every_size_are_read_within_their_bytes() {
    for (const std::size_t width : {1u, 2u, 7u, 31u, 32u, 33u, 100u})
        for (const std::size_t height : {1u, 2u, 8u, 35u, 64u, 90u})
            for (const std::size_t channels : {1u, 3u, 4u}) {
                const auto pixels = random_bytes(width * height * channels, width + height);
                const Picture picture{pixels.get(), width, height, channels,
                                      static_cast<std::ptrdiff_t>(width * channels)};
                for (const Kind kind : {Kind::dct, Kind::difference})
                    for (const std::size_t side : {8u, 16u}) {
                        const auto words = exact_buffer<std::uint64_t>(side * side / 64);
                        const auto least = exact_buffer<std::uint64_t>(side * side / 64);
                        const bool structured = hash_picture(picture, kind, side, false, words.get());
                        check(hash_picture(picture, kind, side, true, least.get()) == structured &&
                                  least[0] <= words[0],
                              "the least of eight hashes");
                        check(structured || words[0] == 0, "no hash without structure");
                    }
            }
}

const Test tests[] = {
    {"phash: lines equal the scalar twin", lines_equal_the_scalar_twin},
    {"phash: transforms equal the scalar twin", transforms_equal_the_scalar_twin},
    {"phash: pictures of every size", pictures_of_every_size_are_read_within_their_bytes},
};

}  // namespace
}  // namespace pycurate::tests
