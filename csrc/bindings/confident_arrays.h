#pragma once
// Class probabilities and labels as the kernels read them, checked.
#include <string>

#include "bindings/array_checks.h"
#include "kernels/confident/confident.h"

namespace pycurate::bindings {

using confident::Element;
using Doubles = py::array_t<double, py::array::c_style>;
using Labels = py::array_t<std::int64_t, py::array::c_style>;

struct Checked {
    Element element;
    confident::Rows rows;
};

inline void check_length(const py::array& array, const char* name, std::size_t n) {
    if (array.ndim() != 1 || static_cast<std::size_t>(array.shape(0)) != n)
        throw py::value_error(std::string(name) + ": expected shape (" + std::to_string(n) + ",), got " +
                              std::string(py::str(array.attr("shape"))));
}

/// (n,) labels, each below k.
inline const std::int64_t* checked_labels(const Labels& labels, std::size_t n, std::size_t k) {
    check_length(labels, "labels", n);
    const std::int64_t* y = labels.data();
    for (std::size_t i = 0; i < n; ++i)
        if (y[i] >= static_cast<std::int64_t>(k))
            throw py::value_error("labels: expected less than " + std::to_string(k) + ", got " +
                                  std::to_string(y[i]) + " in row " + std::to_string(i));
    return y;
}

/// The rows as the kernels read them; throws unless every label is below the number of columns.
inline Checked checked_rows(const py::array& p, const Labels* labels) {
    Element element;
    if (p.dtype().equal(py::dtype("float16")))
        element = Element::float16;
    else if (p.dtype().equal(py::dtype("float32")))
        element = Element::float32;
    else if (p.dtype().equal(py::dtype("float64")))
        element = Element::float64;
    else
        throw_dtype(p, "pred_probs", "float16, float32 or float64");
    if (p.ndim() != 2 || p.shape(1) < 1 || p.shape(1) > INT32_MAX)
        throw py::value_error("pred_probs: expected shape (n, k) with k from 1 to 2^31 - 1, got " +
                              std::string(py::str(p.attr("shape"))));
    if (p.shape(0) > UINT32_MAX)
        throw py::value_error("pred_probs: expected less than 2^32 rows in a call, got " +
                              std::to_string(p.shape(0)));
    if (p.size() > 0 && p.shape(1) > 1 && p.strides(1) != p.itemsize())
        throw py::value_error(
            "pred_probs: expected adjacent elements in each row (any stride between rows), got strides " +
            std::string(py::str(p.attr("strides"))) + "; pass numpy.ascontiguousarray(pred_probs)");
    const auto n = static_cast<std::size_t>(p.shape(0)), k = static_cast<std::size_t>(p.shape(1));
    const std::int64_t* y = labels != nullptr ? checked_labels(*labels, n, k) : nullptr;
    return {element, {p.data(), p.strides(0), n, k, y}};
}

}  // namespace pycurate::bindings
