#include <algorithm>
#include <cmath>
#include <vector>

#include "common/float_environment.h"
#include "common/isa.h"
#include "common/thread_pool.h"
#include "kernels/rowwise/rowwise.h"
#include "kernels/rowwise/similarity.h"

namespace pycurate::rowwise {
namespace {

// Rows whose sums are finished together: few enough that the heads find them in cache.
constexpr std::size_t block_rows = 16;
// Bytes of one matrix that a thread takes at a time: tens of microseconds, so that a start of a thread pays.
constexpr std::size_t task_bytes = 1 << 18;

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

/// Canonical sums of a block; rows beyond the end of the matrix stay 0, so that every loop below has a fixed
/// length and no branch: compilers make vectors of it, and the pass waits for memory, not for roots.
struct Sums {
    double ab[block_rows] = {}, aa[block_rows] = {}, bb[block_rows] = {};
};

void finish_cosine(const Sums& sums, float* out) noexcept {
    for (std::size_t i = 0; i < block_rows; ++i) out[i] = cosine_of(sums.ab[i], sums.aa[i], sums.bb[i]);
}

void finish_inner_product(const Sums& sums, float* out) noexcept {
    for (std::size_t i = 0; i < block_rows; ++i) out[i] = inner_product_of(sums.ab[i]);
}

void finish_l2(const Sums& sums, float* out) noexcept {
    for (std::size_t i = 0; i < block_rows; ++i) out[i] = l2_of(sums.ab[i], sums.aa[i], sums.bb[i]);
}

void finish_norms(const double (&squares)[block_rows], float* out) noexcept {
    for (std::size_t i = 0; i < block_rows; ++i)
        out[i] = static_cast<float>(squares[i] >= 0 ? std::sqrt(squares[i]) : quiet_nan);
}

std::uint8_t flags_of(double squared_norm) noexcept {
    return static_cast<std::uint8_t>((squared_norm < infinity ? 0 : a_not_finite) |
                                     (squared_norm == 0 ? a_zero : 0));
}

/// Heads with a copy of their weights that starts a cache line: NumPy aligns to 16 bytes, and a vector of 64
/// that straddles two lines is loaded at half the rate.
class AlignedHeads {
  public:
    AlignedHeads(const Heads& heads, std::size_t d) : storage_(heads.count * d + 15), heads_(heads) {
        const std::size_t past = reinterpret_cast<std::uintptr_t>(storage_.data()) % 64 / sizeof(float);
        heads_.weights =
            std::copy_n(heads.weights, heads.count * d, storage_.data() + (past == 0 ? 0 : 16 - past)) -
            heads.count * d;
    }
    operator const Heads&() const noexcept { return heads_; }

  private:
    std::vector<float> storage_;
    Heads heads_;
};

Heads heads_from(Heads heads, std::size_t i) noexcept {
    heads.out += i * heads.count;
    return heads;
}

void score_block(const Kernels& kernels, const PairRequest& r, std::size_t begin, std::size_t n) noexcept {
    const auto element = static_cast<int>(r.element);
    const Matrix a = rows_from(r.a, begin), b = rows_from(r.b, begin);
    const Heads heads_a = heads_from(r.heads_a, begin), heads_b = heads_from(r.heads_b, begin);
    Sums sums;
    if (r.metric == Metric::inner_product && r.norms_a == nullptr && heads_a.count + heads_b.count == 0)
        kernels.dots[element](a, b, n, r.d, sums.ab);
    else
        kernels.pair_sums[element](a, b, n, r.d, heads_a, heads_b, sums.ab, sums.aa, sums.bb);
    float finished[block_rows];
    switch (r.metric) {
        case Metric::cosine: finish_cosine(sums, finished); break;
        case Metric::inner_product: finish_inner_product(sums, finished); break;
        case Metric::l2: finish_l2(sums, finished); break;
    }
    std::copy_n(finished, n, r.similarities + begin);
    if (r.norms_a == nullptr) return;
    finish_norms(sums.aa, finished);
    std::copy_n(finished, n, r.norms_a + begin);
    finish_norms(sums.bb, finished);
    std::copy_n(finished, n, r.norms_b + begin);
    for (std::size_t i = 0; i < n; ++i)
        r.flags[begin + i] = static_cast<std::uint8_t>(flags_of(sums.aa[i]) | flags_of(sums.bb[i]) << 2);
}

void measure_block(const Kernels& kernels, const RowRequest& r, std::size_t begin, std::size_t n) noexcept {
    double squares[block_rows] = {};
    kernels.row_sums[static_cast<int>(r.element)](rows_from(r.x, begin), n, r.d, heads_from(r.heads, begin),
                                                  squares);
    float norms[block_rows];
    finish_norms(squares, norms);
    std::copy_n(norms, n, r.norms + begin);
    for (std::size_t i = 0; i < n; ++i) r.flags[begin + i] = flags_of(squares[i]);
}

}  // namespace

bool score_pairs(const PairRequest& request, std::size_t threads, const std::function<bool()>& poll) {
    const AlignedHeads heads_a(request.heads_a, request.d), heads_b(request.heads_b, request.d);
    PairRequest r = request;
    r.heads_a = heads_a;
    r.heads_b = heads_b;
    const Kernels& kernels = active_kernels();
    return for_row_ranges(r.n, r.d * element_bytes(r.element), threads, poll,
                          [&](std::size_t begin, std::size_t end) {
                              for (std::size_t i = begin; i < end; i += block_rows)
                                  score_block(kernels, r, i, std::min(block_rows, end - i));
                          });
}

bool measure_rows(const RowRequest& request, std::size_t threads, const std::function<bool()>& poll) {
    const AlignedHeads heads(request.heads, request.d);
    RowRequest r = request;
    r.heads = heads;
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
