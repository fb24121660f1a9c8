#pragma once
// Canonical sums (kernels/rowwise/rowwise.h) on a device: the same bits. Two threads share a row, each with
// eight of the sixteen lanes, so that what they read together is a sector of 32 bytes.
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/rowwise/rowwise.h"

namespace pycurate::cuda {

using rowwise::Element, rowwise::Metric;

/// Rows of a device matrix. `aligned`: every row begins at a multiple of 16 bytes.
struct Rows {
    const char* data;
    std::int64_t stride;  // bytes
    std::uint32_t d;
    Element element;
    bool aligned;

    __device__ const char* row(std::uint64_t i) const { return data + static_cast<std::int64_t>(i) * stride; }
};

__device__ inline float widen_half(std::uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
__device__ inline float widen_bfloat(std::uint16_t bits) {
    return __uint_as_float(static_cast<std::uint32_t>(bits) << 16);
}

template <Element element>
__device__ inline float element_at(const char* row, std::uint32_t j) {
    if constexpr (element == Element::float32) return reinterpret_cast<const float*>(row)[j];
    if constexpr (element == Element::float16)
        return widen_half(reinterpret_cast<const std::uint16_t*>(row)[j]);
    if constexpr (element == Element::bfloat16)
        return widen_bfloat(reinterpret_cast<const std::uint16_t*>(row)[j]);
    return static_cast<float>(reinterpret_cast<const std::int8_t*>(row)[j]);
}

/// Eight elements from j on, zeros beyond d.
template <Element element>
__device__ inline void load8(const char* row, std::uint32_t j, std::uint32_t d, bool aligned,
                             float (&out)[8]) {
    if (aligned && j + 8 <= d && element != Element::int8) {
        if constexpr (element == Element::float32) {
            const float4* from = reinterpret_cast<const float4*>(row + static_cast<std::size_t>(j) * 4);
            const float4 a = __ldg(from), b = __ldg(from + 1);
            out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
            out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
        } else {
            const uint4 words = __ldg(reinterpret_cast<const uint4*>(row + static_cast<std::size_t>(j) * 2));
            const std::uint32_t parts[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const auto low = static_cast<std::uint16_t>(parts[k] & 0xffffu);
                const auto high = static_cast<std::uint16_t>(parts[k] >> 16);
                out[2 * k] = element == Element::float16 ? widen_half(low) : widen_bfloat(low);
                out[2 * k + 1] = element == Element::float16 ? widen_half(high) : widen_bfloat(high);
            }
        }
        return;
    }
#pragma unroll
    for (std::uint32_t k = 0; k < 8; ++k) out[k] = j + k < d ? element_at<element>(row, j + k) : 0.0f;
}

/// Folds the lanes of a pair of threads, of which `own` are mine: l += l + 8, + 4, + 2, + 1.
__device__ inline float fold_pair(const float (&own)[8], std::uint32_t threads) {
    float lanes[8];
#pragma unroll
    for (int l = 0; l < 8; ++l) lanes[l] = own[l] + __shfl_xor_sync(threads, own[l], 1);
#pragma unroll
    for (int l = 0; l < 4; ++l) lanes[l] = lanes[l] + lanes[l + 4];
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

template <Element element>
__device__ inline double canonical_dot_of(const char* x, const char* y, std::uint32_t d, bool aligned,
                                          std::uint32_t threads) {
    const std::uint32_t half = threadIdx.x & 1u;
    if constexpr (element == Element::int8) {
        long long sum = 0;
        for (std::uint32_t j = half * 8; j < d; j += 16) {
            int part = 0;
            if (aligned && j + 8 <= d) {
                const int2 a = __ldg(reinterpret_cast<const int2*>(x + j));
                const int2 b = __ldg(reinterpret_cast<const int2*>(y + j));
                part = __dp4a(a.x, b.x, __dp4a(a.y, b.y, 0));
            } else {
                for (std::uint32_t k = j; k < min(j + 8, d); ++k)
                    part += static_cast<int>(x[k]) * static_cast<int>(y[k]);
            }
            sum += part;
        }
        sum += __shfl_xor_sync(threads, sum, 1);
        return static_cast<double>(sum);
    } else {
        float lanes[8] = {};
#pragma unroll 8
        for (std::uint32_t group = 0; group < d; group += 16) {
            const std::uint32_t j = group + half * 8;
            float a[8], b[8];
            load8<element>(x, j, d, aligned, a);
            load8<element>(y, j, d, aligned, b);
#pragma unroll
            for (int l = 0; l < 8; ++l) lanes[l] = __fmaf_rn(a[l], b[l], lanes[l]);
        }
        return static_cast<double>(fold_pair(lanes, threads));
    }
}

/// Canonical sum of two rows by a pair of threads, of which both get it. `threads`: those that call, whole
/// pairs.
static __device__ __noinline__ double canonical_dot(const char* x, const char* y, std::uint32_t d,
                                                    Element element, bool aligned, std::uint32_t threads) {
    switch (element) {
        case Element::float32: return canonical_dot_of<Element::float32>(x, y, d, aligned, threads);
        case Element::float16: return canonical_dot_of<Element::float16>(x, y, d, aligned, threads);
        case Element::bfloat16: return canonical_dot_of<Element::bfloat16>(x, y, d, aligned, threads);
        case Element::int8: break;
    }
    return canonical_dot_of<Element::int8>(x, y, d, aligned, threads);
}

/// An element of a row, widened.
inline __device__ float any_element(const Rows& x, const char* row, std::uint32_t j) {
    switch (x.element) {
        case Element::float32: return element_at<Element::float32>(row, j);
        case Element::float16: return element_at<Element::float16>(row, j);
        case Element::bfloat16: return element_at<Element::bfloat16>(row, j);
        case Element::int8: break;
    }
    return element_at<Element::int8>(row, j);
}

}  // namespace pycurate::cuda
