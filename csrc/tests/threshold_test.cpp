#include "kernels/threshold/threshold.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"

namespace pycurate::tests {
namespace {

/// Rows whose value lies in the range of one bin, found by comparing floats instead of keys.
template <class Float, class Bits>
void counts_equal_comparisons(void (*count)(const Bits*, const std::uint8_t*, std::size_t, unsigned,
                                            std::uint64_t, std::int64_t*) noexcept) {
    constexpr unsigned width = 8 * sizeof(Bits);
    constexpr Bits sign = Bits{1} << (width - 1);
    const auto key_of = [](Float x) {
        const Bits bits = std::bit_cast<Bits>(x == 0 ? Float{0} : x);
        return static_cast<Bits>((bits & sign) != 0 ? ~bits : bits | sign);
    };
    const Float infinity = std::numeric_limits<Float>::infinity(),
                nan = std::numeric_limits<Float>::quiet_NaN();
    const Float special[] = {0,
                             -Float{0},
                             infinity,
                             -infinity,
                             nan,
                             -nan,
                             std::numeric_limits<Float>::denorm_min(),
                             -std::numeric_limits<Float>::denorm_min()};
    for (const std::size_t n : {0u, 1u, 3u, 4u, 7u, 8u, 9u, 33u, 515u}) {
        std::mt19937_64 engine(n);
        std::normal_distribution<Float> scores(Float(0.22), Float(0.06));
        const auto values = exact_buffer<Float>(n);
        const auto bits = exact_buffer<Bits>(n);
        const auto mask = exact_buffer<std::uint8_t>(n);
        for (std::size_t i = 0; i < n; ++i) {
            values[i] = engine() % 3 == 0 ? special[engine() % 8] : scores(engine);
            bits[i] = std::bit_cast<Bits>(values[i]);
            mask[i] = engine() % 2;
        }
        const std::uint8_t *const no_mask = nullptr, *const some = mask.get();
        for (const Float pivot :
             {Float{0}, infinity, -infinity, n > 0 && values[0] == values[0] ? values[0] : Float{1}})
            for (unsigned digit = 0; digit < width / 16; ++digit)
                for (const std::uint8_t* chosen : {no_mask, some}) {
                    const std::uint64_t digits =
                        static_cast<std::uint64_t>(key_of(pivot)) >> (width - 16 * (digit + 1));
                    const auto counts = exact_buffer<std::int64_t>(65536);
                    count(bits.get(), chosen, n, digit, digits >> 16, counts.get());
                    std::vector<std::int64_t> expected(65536);
                    for (std::size_t i = 0; i < n; ++i) {
                        if (std::isnan(values[i]) || (chosen != nullptr && chosen[i] == 0)) continue;
                        const std::uint64_t own =
                            static_cast<std::uint64_t>(key_of(values[i])) >> (width - 16 * (digit + 1));
                        if (own >> 16 == digits >> 16) ++expected[own & 0xffff];
                    }
                    check(std::memcmp(counts.get(), expected.data(), 65536 * sizeof(std::int64_t)) == 0,
                          "n = " + std::to_string(n) + ", digit " + std::to_string(digit));
                }
    }
}

void float32_digits() {
    counts_equal_comparisons<float, std::uint32_t>(threshold::active_kernels().count_f32);
}
void float64_digits() {
    counts_equal_comparisons<double, std::uint64_t>(threshold::active_kernels().count_f64);
}

void uid_digits() {
    const auto uids = exact_buffer<uid::Uid>(3);
    uids[0] = {0x0001'0002'0003'0004, 0x0005'0006'0007'0008};
    uids[1] = {0x0001'0002'0003'0004, 0x0005'0006'0007'0009};
    uids[2] = {0x0001'0002'0003'0009, 0x0005'0006'0007'0008};
    for (unsigned digit = 0; digit < 8; ++digit) {
        const auto counts = exact_buffer<std::int64_t>(65536);
        threshold::count_uid(uids.get(), nullptr, 3, digit, uids[0], counts.get());
        const bool apart = digit == 3 || digit == 7;  // where one of the others differs first
        const std::int64_t same = digit < 3 ? 3 : digit == 7 ? 1 : 2;
        check(counts[digit + 1] == same, "rows of the same digit");
        check(counts[9] == (apart ? 1 : 0), "rows of another digit");
    }
}

const Test tests[] = {
    {"threshold: float32 digits", float32_digits},
    {"threshold: float64 digits", float64_digits},
    {"threshold: uid digits", uid_digits},
};

}  // namespace
}  // namespace pycurate::tests
