#pragma once
#include <pybind11/pybind11.h>

namespace pycurate::bindings {

/// A `poll` for parallel_for: true when Ctrl-C (or another signal's handler) raised; the error is then set,
/// and the caller, once it holds the GIL again, throws py::error_already_set.
inline bool interrupted() {
    const pybind11::gil_scoped_acquire gil;
    return PyErr_CheckSignals() != 0;
}

}  // namespace pycurate::bindings
