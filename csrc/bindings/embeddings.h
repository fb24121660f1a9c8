#pragma once
// Embedding matrices and their names, as every binding of them takes them.
#include <string>

#include "bindings/array_checks.h"
#include "kernels/rowwise/rowwise.h"

namespace pycurate::bindings {

inline rowwise::Element element_of(const std::string& name) {
    if (name == "float32") return rowwise::Element::float32;
    if (name == "float16") return rowwise::Element::float16;
    if (name == "bfloat16") return rowwise::Element::bfloat16;
    if (name == "int8") return rowwise::Element::int8;
    throw py::value_error("element: expected 'float32', 'float16', 'bfloat16' or 'int8', got '" + name + "'");
}

inline rowwise::Metric metric_of(const std::string& name) {
    if (name == "cosine") return rowwise::Metric::cosine;
    if (name == "inner_product") return rowwise::Metric::inner_product;
    if (name == "l2") return rowwise::Metric::l2;
    throw py::value_error("metric: expected 'cosine', 'inner_product' or 'l2', got '" + name + "'");
}

/// The rows of `array` as the kernels read them; throws unless it is (n, d), holds what `element` says
/// (bfloat16 as uint16) and has adjacent elements in each row.
inline rowwise::Matrix matrix_of(const py::array& array, const std::string& name, rowwise::Element element) {
    static constexpr const char* stored[] = {"float32", "float16", "uint16", "int8"};
    const char* expected = stored[static_cast<int>(element)];
    if (!array.dtype().equal(py::dtype(expected))) throw_dtype(array, name.c_str(), expected);
    if (array.ndim() != 2)
        throw py::value_error(name + ": expected a 2-D array (n, d), got " + std::to_string(array.ndim()) +
                              "-D");
    if (array.size() > 0 && array.shape(1) > 1 && array.strides(1) != array.itemsize())
        throw py::value_error(
            name + ": expected adjacent elements in each row (any stride between rows), got strides " +
            std::string(py::str(array.attr("strides"))) + "; pass numpy.ascontiguousarray(" + name + ")");
    return {array.data(), array.strides(0)};
}

}  // namespace pycurate::bindings
