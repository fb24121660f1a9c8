#pragma once
// Matrices in CUDA memory that other libraries lend.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "cuda/device.h"

namespace pycurate::bindings {
namespace py = pybind11;

// DLPack's tensor, as its specification lays it out (version 0, unchanged in version 1 below the header).
struct DlTensor {
    void* data;
    std::int32_t device_type, device_id, ndim;
    std::uint8_t code, bits;
    std::uint16_t lanes;
    std::int64_t* shape;
    std::int64_t* strides;  // in elements; null: C order
    std::uint64_t byte_offset;
};
constexpr std::int32_t dl_cuda = 2;
constexpr std::uint8_t dl_floating = 2;

[[noreturn]] inline void throw_shape(const std::string& name, std::size_t dimensions) {
    throw py::value_error(name + ": expected a 2-D array (n, d), got " + std::to_string(dimensions) + "-D");
}
[[noreturn]] inline void throw_strides(const std::string& name) {
    throw py::value_error(name + ": expected adjacent elements in each row (any stride between rows); pass " +
                          name + ".contiguous()");
}

/// The 2-D tensor in CUDA memory, of adjacent elements in each row, of an unused capsule; waits for the
/// shared default stream, on which its data will be ready.
inline const DlTensor* cuda_matrix(const py::capsule& capsule, const std::string& name) {
    if (std::string(capsule.name()) != "dltensor")
        throw py::type_error(name + ": expected an unused DLPack capsule");
    const auto* x = static_cast<const DlTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
    if (x->device_type != dl_cuda) throw py::value_error(name + ": expected a tensor in CUDA memory");
    if (x->ndim != 2) throw_shape(name, static_cast<std::size_t>(x->ndim));
    if (x->strides != nullptr && x->shape[1] > 1 && x->shape[0] > 0 && x->strides[1] != 1)
        throw_strides(name);
    cuda::wait_for_shared_stream(x->device_id);
    return x;
}

/// In elements.
inline std::int64_t row_stride(const DlTensor& x) { return x.strides != nullptr ? x.strides[0] : x.shape[1]; }

inline const char* first_byte(const DlTensor& x) { return static_cast<const char*>(x.data) + x.byte_offset; }

}  // namespace pycurate::bindings
