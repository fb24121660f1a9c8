#include "kernels/caption/caption.h"

#include <pybind11/numpy.h>

#include <cstdint>
#include <string>

#include "bindings/array_checks.h"

namespace pycurate::bindings {
namespace {

/// Row of the first text that does not lie in `size` bytes of data, n where all do.
template <class Offset>
std::size_t first_outside(const Offset* offsets, std::size_t n, std::size_t size) {
    if (offsets[0] < 0) return 0;
    for (std::size_t i = 0; i < n; ++i)
        if (offsets[i + 1] < offsets[i] || static_cast<std::size_t>(offsets[i + 1]) > size) return i;
    return n;
}

template <class Offset>
py::array_t<float> count_words_of(const py::array& data, const py::array& offsets) {
    const auto n = static_cast<std::size_t>(offsets.shape(0)) - 1;
    const auto* text = static_cast<const std::uint8_t*>(data.data());
    const auto* ends = static_cast<const Offset*>(offsets.data());
    const auto size = static_cast<std::size_t>(data.shape(0));
    py::array_t<float> out(static_cast<py::ssize_t>(n));
    float* words = out.mutable_data();
    std::size_t outside;
    {
        py::gil_scoped_release no_gil;
        outside = first_outside(ends, n, size);
        const auto count = caption::active_kernels().count_words;
        for (std::size_t i = 0; i < outside; ++i)
            words[i] =
                static_cast<float>(count(text + ends[i], static_cast<std::size_t>(ends[i + 1] - ends[i])));
    }
    if (outside < n)
        throw py::value_error("offsets: row " + std::to_string(outside) + " points outside data");
    return out;
}

py::array_t<float> count_words(const py::array& data, const py::array& offsets) {
    if (!data.dtype().equal(py::dtype("uint8"))) throw_dtype(data, "data", "uint8");
    if (data.ndim() != 1 || !(data.flags() & py::array::c_style))
        throw py::value_error("data: expected a contiguous 1-D array");
    if (offsets.ndim() != 1 || offsets.shape(0) < 1 || !(offsets.flags() & py::array::c_style))
        throw py::value_error("offsets: expected a contiguous 1-D array (n + 1,)");
    if (offsets.dtype().equal(py::dtype("int32"))) return count_words_of<std::int32_t>(data, offsets);
    if (offsets.dtype().equal(py::dtype("int64"))) return count_words_of<std::int64_t>(data, offsets);
    throw_dtype(offsets, "offsets", "int32 or int64");
}

}  // namespace

void bind_caption(py::module_& m) { m.def("count_words", &count_words, py::arg("data"), py::arg("offsets")); }

}  // namespace pycurate::bindings
