#include <algorithm>
#include <bit>
#include <cmath>

#include "common/float_environment.h"
#include "common/isa.h"
#include "common/thread_pool.h"
#include "kernels/rowwise/rowwise.h"

namespace pycurate::rowwise {
namespace {

// Rows whose sums are finished together: few enough that the heads find them in cache.
constexpr std::size_t block_rows = 16;
// Bytes of one matrix that a thread takes at a time: tens of microseconds, so that a start of a thread pays.
constexpr std::size_t task_bytes = 1 << 18;

constexpr float quiet_nan = std::bit_cast<float>(0x7fc00000u);

std::size_t element_bytes(Element element) noexcept {
    switch (element) {
        case Element::float32: return 4;
        case Element::float16:
        case Element::bfloat16: return 2;
        case Element::int8: break;
    }
    return 1;
}

Matrix rows_from(Matrix x, std::size_t i) noexcept {
    return {static_cast<const char*>(x.data) + static_cast<std::ptrdiff_t>(i) * x.row_stride, x.row_stride};
}

/// Call body(begin, end) for ranges that cover rows 0 to n.
template <class Body>
bool for_row_ranges(std::size_t n, std::size_t row_bytes, std::size_t threads,
                    const std::function<bool()>& poll, const Body& body) {
    const std::size_t rows = std::max<std::size_t>(task_bytes / std::max<std::size_t>(row_bytes, 64), 1);
    const auto task = [&](std::size_t t) {
        const DefaultFloatEnvironment environment;
        body(t * rows, std::min(n, (t + 1) * rows));
    };
    return parallel_for((n + rows - 1) / rows, threads, task, poll);
}

float rounded(double value) noexcept {
    const float result = static_cast<float>(value);
    return std::isnan(result) ? quiet_nan : result;
}

float finite_or_nan(double value) noexcept {
    const float result = static_cast<float>(value);
    return std::isfinite(result) ? result : quiet_nan;
}

float similarity(Metric metric, double ab, double aa, double bb) noexcept {
    if (!std::isfinite(ab)) return quiet_nan;
    switch (metric) {
        case Metric::cosine: {
            const double product = aa * bb;
            if (!(product > 0 && std::isfinite(product))) return quiet_nan;
            return static_cast<float>(std::clamp(ab / std::sqrt(product), -1.0, 1.0));
        }
        case Metric::l2: return finite_or_nan(0.0 - std::max(aa + bb - 2.0 * ab, 0.0));
        case Metric::inner_product: break;
    }
    return finite_or_nan(ab);
}

unsigned flags_of(double squared_norm) noexcept {
    if (!std::isfinite(squared_norm)) return a_not_finite;
    if (squared_norm == 0) return a_zero;
    return 0;
}

Heads heads_from(Heads heads, std::size_t i) noexcept {
    heads.out += i * heads.count;
    return heads;
}

void add_bias(const Heads& heads, std::size_t n) noexcept {
    float* out = heads.out;
    for (std::size_t i = 0; i < n; ++i, out += heads.count)
        for (std::size_t k = 0; k < heads.count; ++k) {
            const float score = out[k] + heads.bias[k];
            out[k] = std::isnan(score) ? quiet_nan : score;
        }
}

void score_block(const Kernels& kernels, const PairRequest& r, std::size_t begin, std::size_t n) noexcept {
    const auto element = static_cast<int>(r.element);
    const Matrix a = rows_from(r.a, begin), b = rows_from(r.b, begin);
    double ab[block_rows], aa[block_rows] = {}, bb[block_rows] = {};
    const Heads heads_a = heads_from(r.heads_a, begin), heads_b = heads_from(r.heads_b, begin);
    if (r.metric == Metric::inner_product && r.norms_a == nullptr && heads_a.count + heads_b.count == 0)
        kernels.dots[element](a, b, n, r.d, ab);
    else
        kernels.pair_sums[element](a, b, n, r.d, heads_a, heads_b, ab, aa, bb);
    for (std::size_t i = 0; i < n; ++i) r.similarities[begin + i] = similarity(r.metric, ab[i], aa[i], bb[i]);
    if (r.norms_a != nullptr) {
        for (std::size_t i = 0; i < n; ++i) {
            r.norms_a[begin + i] = rounded(std::sqrt(aa[i]));
            r.norms_b[begin + i] = rounded(std::sqrt(bb[i]));
            r.flags[begin + i] = static_cast<std::uint8_t>(flags_of(aa[i]) | flags_of(bb[i]) << 2);
        }
    }
    add_bias(heads_a, n);
    add_bias(heads_b, n);
}

void measure_block(const Kernels& kernels, const RowRequest& r, std::size_t begin, std::size_t n) noexcept {
    double xx[block_rows];
    const Heads heads = heads_from(r.heads, begin);
    kernels.row_sums[static_cast<int>(r.element)](rows_from(r.x, begin), n, r.d, heads, xx);
    for (std::size_t i = 0; i < n; ++i) {
        r.norms[begin + i] = rounded(std::sqrt(xx[i]));
        r.flags[begin + i] = static_cast<std::uint8_t>(flags_of(xx[i]));
    }
    add_bias(heads, n);
}

}  // namespace

bool score_pairs(const PairRequest& r, std::size_t threads, const std::function<bool()>& poll) {
    const Kernels& kernels = active_kernels();
    return for_row_ranges(r.n, r.d * element_bytes(r.element), threads, poll,
                          [&](std::size_t begin, std::size_t end) {
                              for (std::size_t i = begin; i < end; i += block_rows)
                                  score_block(kernels, r, i, std::min(block_rows, end - i));
                          });
}

bool measure_rows(const RowRequest& r, std::size_t threads, const std::function<bool()>& poll) {
    const Kernels& kernels = active_kernels();
    return for_row_ranges(r.n, r.d * element_bytes(r.element), threads, poll,
                          [&](std::size_t begin, std::size_t end) {
                              for (std::size_t i = begin; i < end; i += block_rows)
                                  measure_block(kernels, r, i, std::min(block_rows, end - i));
                          });
}

bool convert_rows(const ConvertRequest& r, std::size_t threads, const std::function<bool()>& poll) {
    const auto convert = active_kernels().convert[static_cast<int>(r.from)][static_cast<int>(r.to)];
    const std::size_t in_bytes = r.d * element_bytes(r.from), out_bytes = r.d * element_bytes(r.to);
    return for_row_ranges(r.n, in_bytes, threads, poll, [&](std::size_t begin, std::size_t end) {
        char* out = static_cast<char*>(r.out) + begin * out_bytes;
        if (r.x.row_stride == static_cast<std::ptrdiff_t>(in_bytes)) {
            convert(rows_from(r.x, begin).data, (end - begin) * r.d, out);
            return;
        }
        for (std::size_t i = begin; i < end; ++i, out += out_bytes) convert(rows_from(r.x, i).data, r.d, out);
    });
}

const Kernels& active_kernels() noexcept {
    switch (active_isa()) {
        case Isa::avx512: return avx512;
        case Isa::avx2: return avx2;
        case Isa::scalar: break;
    }
    return scalar;
}

}  // namespace pycurate::rowwise
