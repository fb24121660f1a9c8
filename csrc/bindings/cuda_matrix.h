#pragma once
// Matrices in the memory of a device, as Python holds them.
#include "bindings/array_checks.h"
#include "cuda/fused_similarity.h"

namespace pycurate::bindings {

/// A matrix on a device and, for as long as it lives, the object whose memory it is.
struct PyMatrix {
    cuda::Matrix rows;
    py::object owner;
};

void bind_cuda_matrix(py::module_& m);

}  // namespace pycurate::bindings
