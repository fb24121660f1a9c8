#pragma once
#include <pybind11/pybind11.h>

#include <functional>
#include <optional>

namespace pycurate::bindings {

/// A `poll` for parallel_for: true when Ctrl-C (or another signal's handler) raised; the error is then set,
/// and the caller, once it holds the GIL again, throws py::error_already_set.
inline bool interrupted() {
    const pybind11::gil_scoped_acquire gil;
    return PyErr_CheckSignals() != 0;
}

using Progress = std::optional<pybind11::function>;

/// The same for kernels that say how much is done: an error in `progress`, too, stays set and ends the call.
inline std::function<bool(double)> poll_of(const Progress& progress) {
    return [&progress](double done) {
        const pybind11::gil_scoped_acquire gil;
        if (PyErr_CheckSignals() != 0) return true;
        if (!progress) return false;
        try {
            (*progress)(done);
        } catch (pybind11::error_already_set& error) {
            error.restore();
            return true;
        }
        return false;
    };
}

/// A call of a kernel without the GIL; false from it raises what is set.
template <class Call>
void run(const Call& call) {
    bool finished;
    {
        const pybind11::gil_scoped_release no_gil;
        finished = call();
    }
    if (!finished) throw pybind11::error_already_set();
}

}  // namespace pycurate::bindings
