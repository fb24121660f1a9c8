#pragma once
// Arrays of graphs and states as the kernels read them, checked.
#include <optional>
#include <string>

#include "bindings/array_checks.h"
#include "kernels/graph/graph.h"

namespace pycurate::bindings {

using graph::block_rows, graph::Edges, graph::Seeds, graph::width_step;
using Optional = std::optional<py::array>;

/// The elements of a C-ordered array of type T and, unless negative, `size` elements.
template <class T>
const T* elements(const py::array& array, const char* name, py::ssize_t size = -1) {
    if (!array.dtype().equal(py::dtype::of<T>()))
        throw_dtype(array, name, std::string(py::str(py::dtype::of<T>())).c_str());
    if (!(array.flags() & py::array::c_style) || !(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
        throw py::value_error(std::string(name) + ": expected C order, aligned; pass a copy");
    if (size >= 0 && array.size() != size)
        throw py::value_error(std::string(name) + ": expected " + std::to_string(size) + " elements, got " +
                              std::to_string(array.size()));
    return static_cast<const T*>(array.data());
}

template <class T>
T* writable(py::array& array, const char* name, py::ssize_t size) {
    elements<T>(array, name, size);
    if (!array.writeable()) throw py::value_error(std::string(name) + ": expected a writable array");
    return static_cast<T*>(array.mutable_data());
}

template <class T>
Edges<T> edges_of(const py::array& indptr, const py::array& indices, const py::array& values,
                  std::size_t first_row = 0) {
    const auto* starts = elements<std::uint64_t>(indptr, "indptr");
    if (indptr.size() < 1) throw py::value_error("indptr: expected rows + 1 elements, got none");
    const auto rows = static_cast<std::size_t>(indptr.size() - 1);
    const auto count = static_cast<py::ssize_t>(starts[rows] - starts[0]);
    const bool wide = indices.dtype().equal(py::dtype("uint64"));
    const void* columns = wide ? static_cast<const void*>(elements<std::uint64_t>(indices, "indices", count))
                               : static_cast<const void*>(elements<std::uint32_t>(indices, "indices", count));
    return {starts, columns, wide, elements<T>(values, "values", count), rows, first_row};
}

template <class T>
Seeds<T> seeds_of(const Optional& indptr, const Optional& labels, const Optional& values,
                  const Optional& clamped, std::size_t rows, std::size_t limit) {
    Seeds<T> seeds{};
    if (clamped) seeds.clamped = elements<std::uint8_t>(*clamped, "clamped", static_cast<py::ssize_t>(rows));
    if (!indptr || !labels || !values) return seeds;
    seeds.indptr = elements<std::uint64_t>(*indptr, "seeds", static_cast<py::ssize_t>(rows + 1));
    const auto count = static_cast<py::ssize_t>(seeds.indptr[rows] - seeds.indptr[0]);
    seeds.labels = elements<std::uint32_t>(*labels, "seed_labels", count);
    seeds.values = elements<T>(*values, "seed_values", count);
    for (py::ssize_t s = 0; s < count; ++s)
        if (seeds.labels[s] >= limit)
            throw py::value_error("seed_labels: expected less than " + std::to_string(limit) + ", got " +
                                  std::to_string(seeds.labels[s]));
    return seeds;
}

inline py::ssize_t blocks_of(std::size_t rows) {
    return static_cast<py::ssize_t>((rows + block_rows - 1) / block_rows);
}

inline std::size_t width_of(const py::array& state, const char* name) {
    check_matrix(state, name);
    const auto width = static_cast<std::size_t>(state.shape(1));
    if (width == 0 || width % width_step != 0)
        throw py::value_error(std::string(name) + ": expected columns of a multiple of " +
                              std::to_string(width_step) + ", got " + std::to_string(width));
    return width;
}

/// Throw unless `state` has the rows of the range, whose own values a sweep looks at.
template <class T>
void check_rows(const py::array& state, const Edges<T>& edges) {
    if (static_cast<std::size_t>(state.shape(0)) < edges.first_row + edges.rows)
        throw py::value_error("state: expected at least " + std::to_string(edges.first_row + edges.rows) +
                              " rows, got " + std::to_string(state.shape(0)));
}

}  // namespace pycurate::bindings
