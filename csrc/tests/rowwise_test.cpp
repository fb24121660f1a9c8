#include "kernels/rowwise/rowwise.h"

#include <xmmintrin.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "common/isa.h"

namespace pycurate::tests {
namespace {

using namespace rowwise;

constexpr Element elements[] = {Element::float32, Element::float16, Element::bfloat16, Element::int8};
constexpr std::size_t bytes_of[] = {4, 2, 2, 1};
constexpr std::size_t sizes[] = {0, 1, 3, 15, 16, 17, 31, 32, 33, 63, 65, 129, 1025, 65'536, 65'569};

/// Random bytes that begin `offset` bytes into the buffer, which ends with the last of them: NaN and
/// infinities included.
struct Rows {
    std::unique_ptr<char[]> buffer;
    Matrix matrix;

    Rows(std::size_t n, std::size_t row_bytes, std::size_t stride, std::size_t offset, unsigned seed) {
        const std::size_t size = n == 0 ? 0 : offset + (n - 1) * stride + row_bytes;
        buffer = exact_buffer<char>(size);
        std::mt19937 random(seed);
        for (std::size_t i = 0; i < size; ++i) buffer[i] = static_cast<char>(random());
        matrix = {buffer.get() + (n == 0 ? 0 : offset), static_cast<std::ptrdiff_t>(stride)};
    }
};

/// Run `call(outputs)` with the instruction set under test and with the scalar one: the bytes must be equal.
template <class Call>
void check_equals_scalar(std::size_t output_bytes, const std::string& what, const Call& call) {
    const Isa isa = active_isa();
    const auto actual = exact_buffer<char>(output_bytes), expected = exact_buffer<char>(output_bytes);
    call(actual.get());
    set_active_isa(Isa::scalar);
    call(expected.get());
    set_active_isa(isa);
    check(std::memcmp(actual.get(), expected.get(), output_bytes) == 0, what);
}

float* floats(char* bytes, std::size_t index, std::size_t n) {
    return reinterpret_cast<float*>(bytes) + index * n;
}

void pairs_and_rows_stay_inside() {
    for (const Element element : elements) {
        for (const std::size_t d : sizes) {
            const std::size_t row_bytes = d * bytes_of[static_cast<int>(element)], n = d > 1025 ? 2 : 19;
            const Rows a(n, row_bytes, row_bytes + 3, 1, 1), b(n, row_bytes, row_bytes, 0, 2);
            const Rows weights(3, d * 4, d * 4, 0, 3), bias(3, 4, 4, 0, 4);
            const auto heads = [&](float* out) {
                return Heads{static_cast<const float*>(weights.matrix.data),
                             static_cast<const float*>(bias.matrix.data), out, 3};
            };
            for (const Metric metric : {Metric::cosine, Metric::inner_product, Metric::l2}) {
                const auto score = [&](char* out) {
                    const PairRequest request{a.matrix,
                                              b.matrix,
                                              n,
                                              d,
                                              element,
                                              metric,
                                              floats(out, 0, n),
                                              floats(out, 1, n),
                                              floats(out, 2, n),
                                              reinterpret_cast<std::uint8_t*>(out) + 36 * n,
                                              heads(floats(out, 3, n)),
                                              heads(floats(out, 6, n))};
                    check(score_pairs(request, 2), "nothing asked it to stop");
                };
                check_equals_scalar(37 * n, "pairs, d = " + std::to_string(d), score);
            }
            const auto dot = [&](char* out) {
                const PairRequest request{
                    a.matrix,          b.matrix, n,       d,       element, Metric::inner_product,
                    floats(out, 0, n), nullptr,  nullptr, nullptr, {},      {}};
                score_pairs(request, 1);
            };
            check_equals_scalar(4 * n, "dots, d = " + std::to_string(d), dot);
            const auto measure = [&](char* out) {
                const RowRequest request{a.matrix,
                                         n,
                                         d,
                                         element,
                                         floats(out, 0, n),
                                         reinterpret_cast<std::uint8_t*>(out) + 16 * n,
                                         heads(floats(out, 1, n))};
                measure_rows(request, 1);
            };
            check_equals_scalar(17 * n, "rows, d = " + std::to_string(d), measure);
        }
    }
}

void conversions_stay_inside() {
    for (const Element from : {Element::float32, Element::float16, Element::bfloat16}) {
        for (const Element to : {Element::float32, Element::float16, Element::bfloat16}) {
            for (const std::size_t d : sizes) {
                for (const std::size_t gap : {0, 5}) {
                    const std::size_t row_bytes = d * bytes_of[static_cast<int>(from)], n = d > 1025 ? 2 : 5;
                    const Rows x(n, row_bytes, row_bytes + gap, gap, 5);
                    check_equals_scalar(n * d * bytes_of[static_cast<int>(to)], "d = " + std::to_string(d),
                                        [&](char* out) { convert_rows({x.matrix, n, d, from, to, out}, 1); });
                }
            }
        }
    }
}

void flush_to_zero_of_the_caller_changes_nothing() {
    const std::vector<float> x(40, 1e-22f);  // 40 squares of 1e-44: subnormal, and so is their sum
    float norm = 0;
    std::uint8_t flags = 0;
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);  // flush to zero, subnormals are zero
    measure_rows({{x.data(), 160}, 1, 40, Element::float32, &norm, &flags, {}}, 1);
    const unsigned after = _mm_getcsr();
    _mm_setcsr(before);
    check(flags == 0 && norm > 0, "the norm of subnormal squares is not zero");
    check((after & 0x8040) == 0x8040, "the caller's environment is given back");
}

const Test tests[] = {{"rowwise: pairs and rows, exact buffers", pairs_and_rows_stay_inside},
                      {"rowwise: conversions, exact buffers", conversions_stay_inside},
                      {"rowwise: flush to zero", flush_to_zero_of_the_caller_changes_nothing}};

}  // namespace
}  // namespace pycurate::tests
