// Compiled for the portable baseline, without vectorisation.
#include <cmath>
#include <cstring>

#include "kernels/rowwise/rowwise_body.h"

namespace pycurate::rowwise {
namespace {

float to_float(float x) noexcept { return x; }
float to_float(Float16 x) noexcept { return widen(x); }
float to_float(BFloat16 x) noexcept { return widen(x); }
float to_float(std::int8_t x) noexcept { return static_cast<float>(x); }
void from_float(float value, float& out) noexcept {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    out = value != value ? std::bit_cast<float>(bits | 0x00400000u) : value;
}
void from_float(float value, Float16& out) noexcept { out = narrow_to_float16(value); }
void from_float(float value, BFloat16& out) noexcept { out = narrow_to_bfloat16(value); }

struct Scalar {
    struct Lanes {
        float lane[16];
    };
    static Lanes zero() noexcept { return {}; }
    template <class T>
    static Lanes load(const T* x, std::size_t count = 16) noexcept {
        T elements[16];
        std::memcpy(elements, x, count * sizeof(T));  // x may be unaligned
        Lanes lanes{};
        for (std::size_t l = 0; l < count; ++l) lanes.lane[l] = to_float(elements[l]);
        return lanes;
    }
    template <class T>
    static void store(const Lanes& lanes, T* out, std::size_t count = 16) noexcept {
        T elements[16];
        for (std::size_t l = 0; l < 16; ++l) from_float(lanes.lane[l], elements[l]);
        std::memcpy(out, elements, count * sizeof(T));
    }
    static Lanes multiply_add(const Lanes& x, const Lanes& y, const Lanes& sum) noexcept {
        Lanes result;
        for (std::size_t l = 0; l < 16; ++l) result.lane[l] = std::fma(x.lane[l], y.lane[l], sum.lane[l]);
        return result;
    }
    static float fold(Lanes lanes) noexcept {
        for (std::size_t width = 8; width > 0; width /= 2)
            for (std::size_t l = 0; l < width; ++l) lanes.lane[l] += lanes.lane[l + width];
        return lanes.lane[0];
    }

    using Wide = std::int32_t;
    using Integers = std::int32_t;
    static constexpr std::size_t integer_step = 1;
    static Integers zero_integers() noexcept { return 0; }
    static Wide load_integers(const std::int8_t* x, std::size_t = 1) noexcept { return *x; }
    static Integers multiply_add_integers(Wide x, Wide y, Integers sum) noexcept { return sum + x * y; }
    static std::int32_t fold_integers(Integers sum) noexcept { return sum; }
};

}  // namespace

extern const Kernels scalar = kernels_of<Scalar>;

}  // namespace pycurate::rowwise
