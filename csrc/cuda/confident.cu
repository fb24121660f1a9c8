// Passes over class probabilities. Sixteen threads share a row, each with one of the lanes of its sum, eight
// where entropies are summed.
#include "cuda/confident.h"

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "cuda/transfer.h"
#include "kernels/confident/logarithm.h"

namespace pycurate::cuda {
namespace {

using confident::Element, confident::Poll, confident::Rows, confident::Summary;
constexpr std::uint32_t block_threads = 256, row_threads = 16, all_threads = ~0u;
constexpr std::uint32_t entropy_threads = confident::entropy_lanes;
/// What of the host's rows goes to the device at a time, and how many rows are answered at a time.
constexpr std::size_t piece_bytes = std::size_t{64} << 20, piece_rows = std::size_t{1} << 20;

__device__ float number(__half x) { return __half2float(x); }
__device__ float number(float x) { return x; }
__device__ double number(double x) { return x; }

template <class Stored>
__device__ const Stored* row_of(const Rows& rows, std::size_t i) {
    return reinterpret_cast<const Stored*>(static_cast<const char*>(rows.data) +
                                           static_cast<std::ptrdiff_t>(i) * rows.stride);
}

/// What is said of each row, in device memory, (n,) each.
struct Said {
    double *self, *other, *sums, *least;
    std::int32_t *predicted, *guess;
};
/// Of a row without a label.
__device__ double no_number() { return __longlong_as_double(0x7ff8000000000000ll); }

template <class Stored, class Number>
__global__ void __launch_bounds__(block_threads) summarise_rows(Rows rows, const Number* bounds, Said out) {
    constexpr Number infinity = std::numeric_limits<Number>::infinity();
    constexpr std::int32_t none = std::numeric_limits<std::int32_t>::max();
    const std::size_t i = (std::size_t{blockIdx.x} * block_threads + threadIdx.x) / row_threads;
    const std::uint32_t lane = threadIdx.x % row_threads;
    const std::size_t at = min(i, rows.n - 1);  // threads beyond the last row take part in what warps do
    const Stored* row = row_of<Stored>(rows, at);
    const std::int64_t label = rows.labels[at];
    Number sum = 0, least = infinity, most = -infinity, other = -infinity;
    std::int32_t predicted = 0, confident = none;
    std::uint32_t count = 0;
#pragma unroll 4
    for (auto j = static_cast<std::int32_t>(lane); j < static_cast<std::int32_t>(rows.k); j += row_threads) {
        const Number p = number(row[j]);
        sum += p;
        if (p < least) least = p;
        if (p > most) most = p, predicted = j;
        if (p > other && j != label) other = p;
        if (p >= bounds[j] && ++count == 1) confident = j;
    }
#pragma unroll
    for (std::uint32_t half = row_threads / 2; half > 0; half /= 2) {
        sum += __shfl_down_sync(all_threads, sum, half, row_threads);
        const Number smaller = __shfl_xor_sync(all_threads, least, half),
                     larger = __shfl_xor_sync(all_threads, most, half),
                     another = __shfl_xor_sync(all_threads, other, half);
        const std::int32_t its = __shfl_xor_sync(all_threads, predicted, half);
        if (smaller < least) least = smaller;
        if (larger > most || (larger == most && its < predicted)) most = larger, predicted = its;
        if (another > other) other = another;
        count += __shfl_xor_sync(all_threads, count, half);
        confident = min(confident, __shfl_xor_sync(all_threads, confident, half));
    }
    if (lane != 0 || i >= rows.n) return;
    // + 0: a zero of either sign, as on the CPU.
    out.self[i] = label < 0 ? no_number() : static_cast<double>(number(row[label]) + Number{0});
    out.other[i] = static_cast<double>(other + Number{0});
    out.sums[i] = static_cast<double>(sum);
    out.least[i] = static_cast<double>(least + Number{0});
    out.predicted[i] = predicted;
    out.guess[i] = count > 1 ? predicted : count == 1 ? confident : -1;
}

/// The terms of the logarithm's series from `term` on, as constants in the code.
template <int term>
__device__ double series_from(double sum, double z) {
    if constexpr (term < confident::series_terms) {
        constexpr double next = confident::series[term];
        return series_from<term + 1>(__fma_rn(sum, z, next), z);
    } else {
        return sum;
    }
}

/// p log p; see kernels/confident/logarithm.h.
__device__ double weighted_logarithm(double p) {
    using namespace confident;
    constexpr double first = series[0];
    if (!(p >= least_probability)) return 0.0;
    const std::uint64_t biased =
        static_cast<std::uint64_t>(__double_as_longlong(p)) + (one_bits - root_half_bits);
    const double e = static_cast<double>(static_cast<std::int64_t>(biased >> 52) - 1023);
    const double m = __longlong_as_double(static_cast<long long>((biased & mantissa_mask) + root_half_bits));
    const double s = __ddiv_rn(m - 1.0, m + 1.0), z = s * s;
    const double sum = series_from<1>(first, z);
    const double low = __fma_rn(e, ln2_low, (s + s) * sum);
    return p * __fma_rn(e, ln2_high, low);
}

template <class Stored>
__global__ void __launch_bounds__(block_threads) sum_entropies(Rows rows, double* out) {
    const std::size_t i = (std::size_t{blockIdx.x} * block_threads + threadIdx.x) / entropy_threads;
    const std::uint32_t lane = threadIdx.x % entropy_threads;
    const Stored* row = row_of<Stored>(rows, min(i, rows.n - 1));
    double sum = 0.0;
#pragma unroll 4
    for (std::size_t j = lane; j < rows.k; j += entropy_threads)
        sum += weighted_logarithm(static_cast<double>(number(row[j])));
#pragma unroll
    for (std::uint32_t half = entropy_threads / 2; half > 0; half /= 2)
        sum += __shfl_down_sync(all_threads, sum, half, entropy_threads);
    if (lane == 0 && i < rows.n) out[i] = 0.0 - sum;
}

template <class Stored>
__global__ void read_self(Rows rows, double* out) {
    const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i >= rows.n) return;
    const std::int64_t label = rows.labels[i];
    out[i] = label < 0 ? no_number() : static_cast<double>(number(row_of<Stored>(rows, i)[label]));
}

__global__ void pack_rows(const char* from, std::ptrdiff_t stride, std::size_t width, char* to) {
    const char* row = from + static_cast<std::ptrdiff_t>(blockIdx.x) * stride;
    for (std::size_t j = threadIdx.x; j < width; j += blockDim.x) to[blockIdx.x * width + j] = row[j];
}

std::uint32_t blocks_for(std::size_t rows, std::size_t threads_of_row) {
    return static_cast<std::uint32_t>((rows * threads_of_row + block_threads - 1) / block_threads);
}

std::size_t size_of(Element element) noexcept {
    return element == Element::float16 ? 2 : element == Element::float32 ? 4 : 8;
}

/// Calls call(rows, begin) for pieces of rows with their labels, if any, all on the device.
template <class Call>
bool by_pieces(const Probabilities& of, const Poll& poll, const Call& call) {
    const std::size_t width = of.rows.k * size_of(of.element), n = of.rows.n;
    const std::size_t step =
        std::min(piece_rows, std::max<std::size_t>(1, of.on_device ? piece_rows : piece_bytes / width));
    const bool labelled = of.rows.labels != nullptr;
    Buffer<char> uploaded(of.on_device ? 0 : std::min(step, n) * width);
    Buffer<std::int64_t> labels(labelled ? std::min(step, n) : 0);
    for (std::size_t begin = 0; begin < n; begin += step) {
        const std::size_t count = std::min(step, n - begin);
        const char* from =
            static_cast<const char*>(of.rows.data) + static_cast<std::ptrdiff_t>(begin) * of.rows.stride;
        Rows rows{from, of.rows.stride, count, of.rows.k, nullptr};
        if (!of.on_device) {
            upload_rows(uploaded.get(), width, from, of.rows.stride, nullptr, width, count);
            rows.data = uploaded.get();
            rows.stride = static_cast<std::ptrdiff_t>(width);
        }
        if (labelled) {
            copy_in(labels.get(), of.rows.labels + begin, count * sizeof(std::int64_t));
            rows.labels = labels.get();
        }
        call(rows, begin);
        if (poll && poll()) return false;
    }
    return true;
}

template <class Stored, class Number>
bool summarise_as(const Probabilities& of, const std::vector<Number>& bounds, const Summary& out,
                  const Poll& poll) {
    const auto limits = Buffer<Number>::of(bounds);
    const std::size_t most = std::min(piece_rows, of.rows.n);
    Buffer<double> numbers(4 * most);
    Buffer<std::int32_t> classes(2 * most);
    return by_pieces(of, poll, [&](const Rows& rows, std::size_t begin) {
        const std::size_t n = rows.n;
        const Said said{numbers.get(),         numbers.get() + n, numbers.get() + 2 * n,
                        numbers.get() + 3 * n, classes.get(),     classes.get() + n};
        summarise_rows<Stored, Number>
            <<<blocks_for(n, row_threads), block_threads>>>(rows, limits.get(), said);
        check(cudaGetLastError(), "starting summaries of probabilities");
        copy_out(out.self + begin, said.self, n * sizeof(double));
        copy_out(out.other + begin, said.other, n * sizeof(double));
        copy_out(out.sums + begin, said.sums, n * sizeof(double));
        copy_out(out.least + begin, said.least, n * sizeof(double));
        copy_out(out.predicted + begin, said.predicted, n * sizeof(std::int32_t));
        copy_out(out.guess + begin, said.guess, n * sizeof(std::int32_t));
    });
}

}  // namespace

bool summarise(const Probabilities& of, const double* bounds, const Summary& out, const Poll& poll) {
    const Current current(of.device);
    if (of.rows.n == 0) return true;
    if (of.element == Element::float64)
        return summarise_as<double, double>(of, {bounds, bounds + of.rows.k}, out, poll);
    std::vector<float> narrow(of.rows.k);
    std::transform(bounds, bounds + of.rows.k, narrow.begin(), confident::not_below);
    if (of.element == Element::float16) return summarise_as<__half, float>(of, narrow, out, poll);
    return summarise_as<float, float>(of, narrow, out, poll);
}

bool entropies(const Probabilities& of, double* out, const Poll& poll) {
    const Current current(of.device);
    if (of.rows.n == 0) return true;
    Buffer<double> answers(std::min(piece_rows, of.rows.n));
    return by_pieces(of, poll, [&](const Rows& rows, std::size_t begin) {
        const auto kernel = of.element == Element::float16   ? sum_entropies<__half>
                            : of.element == Element::float32 ? sum_entropies<float>
                                                             : sum_entropies<double>;
        kernel<<<blocks_for(rows.n, entropy_threads), block_threads>>>(rows, answers.get());
        check(cudaGetLastError(), "starting entropies");
        copy_out(out + begin, answers.get(), rows.n * sizeof(double));
    });
}

bool self_probabilities(const Probabilities& of, double* out, const Poll& poll) {
    const Current current(of.device);
    if (of.rows.n == 0) return true;
    Buffer<double> answers(std::min(piece_rows, of.rows.n));
    return by_pieces(of, poll, [&](const Rows& rows, std::size_t begin) {
        const auto kernel = of.element == Element::float16   ? read_self<__half>
                            : of.element == Element::float32 ? read_self<float>
                                                             : read_self<double>;
        kernel<<<blocks_for(rows.n, 1), block_threads>>>(rows, answers.get());
        check(cudaGetLastError(), "reading probabilities of labels");
        copy_out(out + begin, answers.get(), rows.n * sizeof(double));
    });
}

void copy_rows(const Probabilities& of, void* out) {
    const Current current(of.device);
    const std::size_t width = of.rows.k * size_of(of.element), n = of.rows.n;
    const auto* from = static_cast<const char*>(of.rows.data);
    if (n == 0 || width == 0) return;
    if (n == 1 || of.rows.stride == static_cast<std::ptrdiff_t>(width)) {
        copy_out(out, from, n * width);
        return;
    }
    Buffer<char> packed(n * width);
    pack_rows<<<static_cast<std::uint32_t>(n), block_threads>>>(from, of.rows.stride, width, packed.get());
    check(cudaGetLastError(), "gathering probabilities");
    copy_out(out, packed.get(), packed.size());
}

}  // namespace pycurate::cuda
