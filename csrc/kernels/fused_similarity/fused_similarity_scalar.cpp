#include <bit>
#include <cmath>

#include "kernels/fused_similarity/exponentials_body.h"
#include "kernels/fused_similarity/tiles_body.h"

namespace pycurate::fused_similarity {
namespace {

bool screen(const std::uint8_t* group, const std::int8_t* panel, std::size_t steps, const std::int32_t* start,
            const std::int32_t* limit, std::int32_t* out) noexcept {
    bool any = false;
    for (std::size_t r = 0; r < group_rows; ++r)
        for (std::size_t c = 0; c < panel_rows; ++c) {
            std::int32_t sum = start[c];
            for (std::size_t k = 0; k < steps; ++k)
                for (std::size_t i = 0; i < step_coordinates; ++i)
                    sum += group[k * group_step_bytes + r * step_coordinates + i] *
                           panel[k * panel_step_bytes + c * step_coordinates + i];
            out[r * panel_rows + c] = sum;
            any |= sum >= limit[r];
        }
    return any;
}

struct Scalar {
    struct Lanes {
        float lane[lanes];
    };
    template <class Each>
    static Lanes each(const Each& value) noexcept {
        Lanes result;
        for (std::size_t l = 0; l < lanes; ++l) result.lane[l] = value(l);
        return result;
    }
    static Lanes load(const float* x) noexcept {
        return each([&](std::size_t l) { return x[l]; });
    }
    static void store(const Lanes& x, float* out) noexcept {
        for (std::size_t l = 0; l < lanes; ++l) out[l] = x.lane[l];
    }
    static Lanes set(float x) noexcept {
        return each([&](std::size_t) { return x; });
    }
    static Lanes from_int32(const std::int32_t* x) noexcept {
        return each([&](std::size_t l) { return static_cast<float>(x[l]); });
    }
    static Lanes add(const Lanes& x, const Lanes& y) noexcept {
        return each([&](std::size_t l) { return x.lane[l] + y.lane[l]; });
    }
    static Lanes multiply(const Lanes& x, const Lanes& y) noexcept {
        return each([&](std::size_t l) { return x.lane[l] * y.lane[l]; });
    }
    // Only preparation and bounds come here; their slack covers the second rounding.
    static Lanes multiply_add(const Lanes& x, const Lanes& y, const Lanes& sum) noexcept {
        return each([&](std::size_t l) { return x.lane[l] * y.lane[l] + sum.lane[l]; });
    }
    static Lanes subtract(const Lanes& x, const Lanes& y) noexcept {
        return each([&](std::size_t l) { return x.lane[l] - y.lane[l]; });
    }
    static Lanes largest(const Lanes& x, const Lanes& y) noexcept {
        return each([&](std::size_t l) { return x.lane[l] > y.lane[l] ? x.lane[l] : y.lane[l]; });
    }
    static Lanes least(const Lanes& x, const Lanes& y) noexcept {
        return each([&](std::size_t l) { return x.lane[l] < y.lane[l] ? x.lane[l] : y.lane[l]; });
    }
    static Lanes gather(const float* x, std::size_t stride) noexcept {
        return each([&](std::size_t l) { return x[l * stride]; });
    }
    /// The lowest byte of each, the four of a lane together.
    static void store_bytes(const Lanes& p, const Lanes& q, const Lanes& r, const Lanes& s,
                            std::int8_t* out) noexcept {
        for (std::size_t l = 0; l < lanes; ++l) {
            const float values[step_coordinates] = {p.lane[l], q.lane[l], r.lane[l], s.lane[l]};
            for (std::size_t i = 0; i < step_coordinates; ++i)
                out[l * step_coordinates + i] =
                    static_cast<std::int8_t>(std::bit_cast<std::uint32_t>(values[i]) & 0xffu);
        }
    }
    static std::uint64_t not_below(const Lanes& x, const Lanes& y) noexcept {
        std::uint64_t mask = 0;
        for (std::size_t l = 0; l < lanes; ++l)
            mask |= static_cast<std::uint64_t>(!(x.lane[l] < y.lane[l])) << l;
        return mask;
    }

    static constexpr std::size_t canonical_rows = 1, canonical_columns = 1;
    static void canonical_block(const float* row, const float* column, std::size_t, std::size_t width,
                                float* out) noexcept {
        float sum[lanes] = {};
        for (std::size_t j = 0; j < width; j += lanes)
            for (std::size_t l = 0; l < lanes; ++l) sum[l] = std::fma(row[j + l], column[j + l], sum[l]);
        for (std::size_t half = lanes / 2; half > 0; half /= 2)
            for (std::size_t l = 0; l < half; ++l) sum[l] += sum[l + half];
        *out = sum[0];
    }

    struct Doubles {
        double lane[doubles];
    };
    template <class Each>
    static Doubles each_double(const Each& value) noexcept {
        Doubles result;
        for (std::size_t l = 0; l < doubles; ++l) result.lane[l] = value(l);
        return result;
    }
    static Doubles load_doubles(const double* x) noexcept {
        return each_double([&](std::size_t l) { return x[l]; });
    }
    static Doubles widen(const float* x) noexcept {
        return each_double([&](std::size_t l) { return static_cast<double>(x[l]); });
    }
    static Doubles set_double(double x) noexcept {
        return each_double([&](std::size_t) { return x; });
    }
    static void store(const Doubles& x, double* out) noexcept {
        for (std::size_t l = 0; l < doubles; ++l) out[l] = x.lane[l];
    }
    static void store_narrow(const Doubles& x, float* out) noexcept {
        for (std::size_t l = 0; l < doubles; ++l) out[l] = static_cast<float>(x.lane[l]);
    }
    static Doubles add(const Doubles& x, const Doubles& y) noexcept {
        return each_double([&](std::size_t l) { return x.lane[l] + y.lane[l]; });
    }
    static Doubles subtract(const Doubles& x, const Doubles& y) noexcept {
        return each_double([&](std::size_t l) { return x.lane[l] - y.lane[l]; });
    }
    static Doubles multiply(const Doubles& x, const Doubles& y) noexcept {
        return each_double([&](std::size_t l) { return x.lane[l] * y.lane[l]; });
    }
    static Doubles divide(const Doubles& x, const Doubles& y) noexcept {
        return each_double([&](std::size_t l) { return x.lane[l] / y.lane[l]; });
    }
    static Doubles multiply_add(const Doubles& x, const Doubles& y, const Doubles& sum) noexcept {
        return each_double([&](std::size_t l) { return std::fma(x.lane[l], y.lane[l], sum.lane[l]); });
    }
    static Doubles square_root(const Doubles& x) noexcept {
        return each_double([&](std::size_t l) { return std::sqrt(x.lane[l]); });
    }
    static Doubles nearest(const Doubles& x) noexcept {
        return each_double([&](std::size_t l) { return std::nearbyint(x.lane[l]); });
    }
    static Doubles least(const Doubles& x, const Doubles& y) noexcept {
        return each_double([&](std::size_t l) { return x.lane[l] < y.lane[l] ? x.lane[l] : y.lane[l]; });
    }
    static Doubles most(const Doubles& x, const Doubles& y) noexcept {
        return each_double([&](std::size_t l) { return x.lane[l] > y.lane[l] ? x.lane[l] : y.lane[l]; });
    }
    static Doubles where_finite(const Doubles& x, const Doubles& yes, const Doubles& no) noexcept {
        return each_double(
            [&](std::size_t l) { return std::isfinite(x.lane[l]) ? yes.lane[l] : no.lane[l]; });
    }
    static Doubles power(const Doubles& x) noexcept {
        return each_double([&](std::size_t l) {
            return std::bit_cast<double>((static_cast<std::int64_t>(x.lane[l]) + 1023) << 52);
        });
    }
    static bool above(const Doubles& x, const Doubles& y) noexcept {
        bool any = false;
        for (std::size_t l = 0; l < doubles; ++l) any |= x.lane[l] > y.lane[l];
        return any;
    }
    static bool differ(const float* x, const float* y) noexcept {
        bool any = false;
        for (std::size_t l = 0; l < doubles; ++l) any |= x[l] != y[l];
        return any;
    }
    static Doubles fold8(const Doubles* x) noexcept {
        return each_double([&](std::size_t i) {
            const double* y = x[i].lane;
            return ((y[0] + y[4]) + (y[2] + y[6])) + ((y[1] + y[5]) + (y[3] + y[7]));
        });
    }
};

/// The machine's limit without vectors is nothing anyone compares with.
std::uint64_t burn_nothing(std::size_t) noexcept { return 0; }

}  // namespace

extern const Kernels scalar{screen,
                            false,
                            bound<Scalar>,
                            canonical_tile<Scalar>,
                            scores<Scalar>,
                            exponentials<Scalar>,
                            add_exponentials<Scalar>,
                            insert,
                            transpose<Scalar>,
                            project<Scalar>,
                            flip<Scalar>,
                            hadamard<Scalar>,
                            {quantise<Scalar, false>, quantise<Scalar, true>},
                            {copy_group<false>, copy_group<true>},
                            burn_nothing,
                            burn_nothing};

}  // namespace pycurate::fused_similarity
