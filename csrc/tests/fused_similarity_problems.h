#pragma once
// What the tests of fused similarity share: rows that are hard for bounds, and answers by brute force.
#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "common/half.h"
#include "common/isa.h"
#include "kernels/fused_similarity/fused_similarity.h"
#include "kernels/rowwise/similarity.h"

namespace pycurate::tests {

using namespace fused_similarity;
using rowwise::infinity, rowwise::similarity_of;

constexpr Element elements[] = {Element::float32, Element::float16, Element::bfloat16, Element::int8};
constexpr Metric metrics[] = {Metric::cosine, Metric::inner_product, Metric::l2};
inline const char* const element_names[] = {"float32", "float16", "bfloat16", "int8"};
inline const char* const metric_names[] = {"cosine", "inner_product", "l2"};
constexpr std::size_t tile = group_rows * panel_rows;

/// An aligned buffer with not one element more, every one set.
template <class T, class Value>
AlignedBuffer<T> filled(std::size_t size, const Value& value) {
    AlignedBuffer<T> result(size);
    for (std::size_t i = 0; i < size; ++i) result[i] = static_cast<T>(value());
    return result;
}

template <class T>
AlignedBuffer<T> copied(const AlignedBuffer<T>& x) {
    AlignedBuffer<T> result(x.size());
    std::copy_n(x.data(), x.size(), result.data());
    return result;
}

template <class T>
bool same_bytes(const T* x, const T* y, std::size_t size) {
    return size == 0 || std::memcmp(x, y, size * sizeof(T)) == 0;
}

template <class Each>
void for_every_table(const Each& each) {
    std::size_t at = 0;
    for (const Kernels& kernels : kernels_of(active_isa()))
        each(kernels, " of table " + std::to_string(at++));
}

/// Rows of one element type in a buffer of exactly their size, `gap` bytes apart.
class Rows {
  public:
    std::size_t n, d;
    Element element;

    Rows(const std::vector<float>& values, std::size_t n_, std::size_t d_, Element element_, std::size_t gap)
        : n(n_),
          d(d_),
          element(element_),
          stride_(d_ * rowwise::element_bytes(element_) + gap),
          bytes_(exact_buffer<char>(n_ == 0 ? 0 : n_ * stride_ - gap)) {
        for (std::size_t i = 0; i < n; ++i)
            for (std::size_t j = 0; j < d; ++j) put(i, j, values[i * d + j]);
    }
    Matrix matrix() const noexcept { return {bytes_.get(), static_cast<std::ptrdiff_t>(stride_)}; }
    double at(std::size_t i, std::size_t j) const {
        const char* from = bytes_.get() + i * stride_ + j * rowwise::element_bytes(element);
        std::uint16_t half;
        std::memcpy(&half, from, element == Element::int8 ? 1 : 2);
        if (element == Element::float16) return widen(Float16{half});
        if (element == Element::bfloat16) return widen(BFloat16{half});
        if (element == Element::int8) return static_cast<signed char>(*from);
        float value;
        std::memcpy(&value, from, 4);
        return value;
    }

  private:
    void put(std::size_t i, std::size_t j, float value) {
        char* to = bytes_.get() + i * stride_ + j * rowwise::element_bytes(element);
        const auto byte = static_cast<signed char>(
            std::clamp(static_cast<int>(std::lround(std::clamp(value * 30.0f, -128.0f, 127.0f))), -128, 127));
        const Float16 half = narrow_to_float16(value);
        const BFloat16 brain = narrow_to_bfloat16(value);
        if (element == Element::float32) std::memcpy(to, &value, 4);
        if (element == Element::float16) std::memcpy(to, &half, 2);
        if (element == Element::bfloat16) std::memcpy(to, &brain, 2);
        if (element == Element::int8) std::memcpy(to, &byte, 1);
    }
    std::size_t stride_;
    std::unique_ptr<char[]> bytes_;
};

/// What may be hard for bounds: every ninth row has an outlying coordinate, is constant, tiny, huge, of one
/// coordinate, or nearly the row before; every tenth is the same as another.
inline std::vector<float> hard_rows(std::size_t n, std::size_t d, Element element, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> x(n * d);
    for (float& value : x) value = normal(random);
    const bool narrow = element == Element::float16 || element == Element::int8;
    for (std::size_t i = 1; i < n; ++i) {
        float* row = x.data() + i * d;
        const float* before = row - d;
        switch (i % 9) {
            case 1: row[random() % d] *= narrow ? 40.0f : 1e4f; break;
            case 2: std::fill_n(row, d, 0.25f); break;
            case 3:
                for (std::size_t j = 0; j < d; ++j) row[j] *= narrow ? 0.25f : 1e-12f;
                break;
            case 4:
                for (std::size_t j = 0; j < d; ++j) row[j] *= narrow ? 3.0f : 1e12f;
                break;
            case 5: std::fill_n(row, d, 0.0f), row[random() % d] = -2.0f; break;
            case 6:
                for (std::size_t j = 0; j < d; ++j) row[j] = before[j] + 0.003f * row[j];
                break;
            case 7:
                for (std::size_t j = 0; j < d; ++j) row[j] = -before[j];
                break;
            default: break;
        }
        if (i % 10 == 0) std::copy_n(x.data() + i / 2 * d, d, row);
    }
    // One value that no element type loses, so that no row has a norm of zero.
    for (std::size_t i = 0; i < n; ++i) {
        bool none = true;
        for (std::size_t j = 0; j < d; ++j)
            none &= std::abs(x[i * d + j]) < 0.02f && !(x[i * d + j] != 0 && !narrow);
        if (none) x[i * d] = 1.0f;
    }
    return x;
}

/// Random orthonormal rows, prefixes of 16 and 32 where there are so many, seven random centroids.
inline std::unique_ptr<Screening> random_screening(std::size_t d, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    const std::size_t p = std::min<std::size_t>(d, 40), centroids = 7;
    std::vector<double> basis(p * d);
    for (std::size_t i = 0; i < p; ++i) {
        double* row = basis.data() + i * d;
        for (std::size_t j = 0; j < d; ++j) row[j] = normal(random);
        for (int twice = 0; twice < 2; ++twice)
            for (std::size_t k = 0; k < i; ++k) {
                const double dot = std::inner_product(row, row + d, basis.data() + k * d, 0.0);
                for (std::size_t j = 0; j < d; ++j) row[j] -= dot * basis[k * d + j];
            }
        const double norm = std::sqrt(std::inner_product(row, row + d, row, 0.0));
        for (std::size_t j = 0; j < d; ++j) row[j] /= norm;
    }
    std::vector<float> projection(basis.begin(), basis.end()), centers(centroids * p);
    for (float& value : centers) value = static_cast<float>(normal(random));
    std::vector<std::size_t> stages;
    std::vector<float> norms;
    for (const std::size_t stage : {16, 32})
        if (stage <= p) {
            stages.push_back(stage);
            norms.push_back(
                static_cast<float>(std::sqrt(static_cast<double>(stage) / static_cast<double>(d))));
        }
    return std::make_unique<Screening>(projection.data(), p, d, centers.data(), centroids, p, stages, norms);
}

/// Canonical similarities of rows of x with rows of y by rowwise, which knows no tiles; (n, m).
inline std::vector<float> similarities(const Rows& x, const Rows& y, Metric metric) {
    std::vector<float> result(x.n * y.n);
    const Matrix rows = x.matrix();
    for (std::size_t i = 0; i < x.n && y.n > 0; ++i) {
        const Matrix row{
            static_cast<const char*>(rows.data) + static_cast<std::ptrdiff_t>(i) * rows.row_stride, 0};
        rowwise::score_pairs({row,
                              y.matrix(),
                              y.n,
                              x.d,
                              x.element,
                              metric,
                              result.data() + i * y.n,
                              nullptr,
                              nullptr,
                              nullptr,
                              {},
                              {}},
                             1);
    }
    return result;
}

inline std::unique_ptr<Operand> prepared(const Rows& x, Metric metric, const Screening* screening,
                                         Precision precision, std::size_t threads) {
    auto operand =
        Operand::prepare(x.matrix(), x.d, x.element, nullptr, x.n, metric, screening, precision, threads, {});
    check(operand != nullptr, "nothing asked preparation to stop");
    return operand;
}

/// Two operands, or one with itself, and the similarities that answers are made from.
struct Problem {
    const Operand& a;
    const Operand* b;
    std::size_t n, m;
    std::vector<float> scores;  // (n, m)
    std::string what;

    bool self() const noexcept { return b == nullptr; }
    float score(std::size_t i, std::size_t j) const noexcept { return scores[i * m + j]; }
    /// Every pair once.
    template <class Each>
    void each_pair(const Each& each) const {
        for (std::size_t i = 0; i < n; ++i)
            for (std::size_t j = self() ? i + 1 : 0; j < m; ++j) each(i, j, score(i, j));
    }
    /// A score that a thirtieth of the pairs reach, so that >= matters.
    float threshold() const {
        std::vector<float> known;
        each_pair([&](std::size_t, std::size_t, float score) {
            if (score == score) known.push_back(score);
        });
        if (known.empty()) return 0.5f;
        const auto at = known.begin() + static_cast<std::ptrdiff_t>(known.size() - 1 - known.size() / 30);
        std::nth_element(known.begin(), at, known.end());
        return *at;
    }
};

struct Logs {
    std::vector<double> rows, cols;
};

inline Logs logs_of(const Operand& a, const Operand& b, double scale, std::size_t threads) {
    Logs logs{std::vector<double>(a.n), std::vector<double>(b.n)};
    Work work;
    check(log_sum_exp(a, b, scale, logs.rows.data(), logs.cols.data(), threads, {}, work), "log_sum_exp");
    return logs;
}

/// Of scores that are numbers, in long double with the peak apart.
inline Logs exact_logs(const std::vector<float>& scores, std::size_t n, std::size_t m, double scale) {
    const auto log_of = [&](std::size_t count, const auto& score_at) {
        long double peak = -static_cast<long double>(infinity), sum = 0;
        for (std::size_t i = 0; i < count; ++i)
            if (std::isfinite(score_at(i)))
                peak =
                    std::max(peak, static_cast<long double>(scale) * static_cast<long double>(score_at(i)));
        for (std::size_t i = 0; i < count; ++i)
            if (std::isfinite(score_at(i)))
                sum +=
                    std::exp(static_cast<long double>(scale) * static_cast<long double>(score_at(i)) - peak);
        return static_cast<double>(peak + std::log(sum));
    };
    Logs logs{std::vector<double>(n), std::vector<double>(m)};
    for (std::size_t i = 0; i < n; ++i)
        logs.rows[i] = log_of(m, [&](std::size_t j) { return scores[i * m + j]; });
    for (std::size_t j = 0; j < m; ++j)
        logs.cols[j] = log_of(n, [&](std::size_t i) { return scores[i * m + j]; });
    return logs;
}

/// 1e-12: a series to 1e-14, and the rounding of up to 5,000 additions, most of which goes both ways.
inline bool near(const std::vector<double>& actual, const std::vector<double>& expected) {
    for (std::size_t i = 0; i < actual.size(); ++i)
        if (!(actual[i] == expected[i] ||
              std::abs(actual[i] - expected[i]) <= 1e-12 * std::max(1.0, std::abs(expected[i]))))
            return false;
    return true;
}

inline bool same_bits(const std::vector<double>& x, const std::vector<double>& y) {
    return x.size() == y.size() && same_bytes(x.data(), y.data(), x.size());
}

}  // namespace pycurate::tests
