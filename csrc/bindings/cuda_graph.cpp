// Label propagation on a device, under the names that _core.graph has.
#include "cuda/graph.h"

#include <pybind11/stl.h>

#include <memory>

#include "bindings/graph_arrays.h"
#include "cuda/block_order.h"

namespace pycurate::bindings {
namespace {

using cuda::GraphRows, cuda::Values;
using graph::Labelled;
using Doubles = py::array_t<double>;

/// Values on a device and what they are.
struct PyValues {
    Values values;
    py::dtype dtype;
    std::size_t columns;

    bool is(const char* kind) const { return dtype.equal(py::dtype(kind)); }
};

std::unique_ptr<PyValues> make_values(std::size_t rows, std::size_t columns, const py::dtype& dtype,
                                      int device) {
    const std::size_t row_bytes = columns * static_cast<std::size_t>(dtype.itemsize());
    return std::unique_ptr<PyValues>(new PyValues{Values::empty(device, rows, row_bytes), dtype, columns});
}

/// Throw unless the array is C-ordered rows of the values, which has `first` and so many on.
void check_part(const PyValues& values, const py::array& array, std::size_t first) {
    check_matrix(array, "array");
    const auto count = static_cast<std::size_t>(array.shape(0));
    if (!array.dtype().equal(values.dtype)) throw_dtype(array, "array", "that of the values on the device");
    if (static_cast<std::size_t>(array.shape(1)) != values.columns || first > values.values.rows ||
        count > values.values.rows - first)
        throw py::value_error("array: expected rows of " + std::to_string(values.columns) +
                              " columns, at most " + std::to_string(values.values.rows) + " in all");
}

void write(PyValues& values, const py::array& array, std::size_t first) {
    check_part(values, array, first);
    const void* from = array.data();
    const auto count = static_cast<std::size_t>(array.shape(0));
    const py::gil_scoped_release no_gil;
    values.values.write(from, first, count);
}

void read(const PyValues& values, py::array array, std::size_t first) {
    check_part(values, array, first);
    void* to = array.mutable_data();
    const auto count = static_cast<std::size_t>(array.shape(0));
    const py::gil_scoped_release no_gil;
    values.values.read(to, first, count);
}

template <class T>
std::unique_ptr<GraphRows> rows_as(const py::array& indptr, const py::array& indices, const py::array& values,
                                   std::size_t first_row, const Optional& seeds, const Optional& seed_labels,
                                   const Optional& seed_values, const Optional& clamped, std::size_t labels,
                                   int device) {
    const auto edges = edges_of<T>(indptr, indices, values, first_row);
    const auto added = seeds_of<T>(seeds, seed_labels, seed_values, clamped, edges.rows, labels);
    const py::gil_scoped_release no_gil;
    return std::make_unique<GraphRows>(device, edges, added);
}

std::unique_ptr<GraphRows> make_rows(const py::array& indptr, const py::array& indices,
                                     const py::array& values, std::size_t first_row, const Optional& seeds,
                                     const Optional& seed_labels, const Optional& seed_values,
                                     const Optional& clamped, std::size_t labels, int device) {
    const bool doubles = values.dtype().equal(py::dtype::of<double>());
    return (doubles ? rows_as<double> : rows_as<float>)(indptr, indices, values, first_row, seeds,
                                                        seed_labels, seed_values, clamped, labels, device);
}

/// Throw unless there are the rows that the sweep reads or makes, on the graph's device.
void check_values(const GraphRows& rows, const PyValues& values, const char* name) {
    if (values.values.rows < rows.first_row() + rows.rows())
        throw py::value_error(std::string(name) + ": expected at least " +
                              std::to_string(rows.first_row() + rows.rows()) + " rows, got " +
                              std::to_string(values.values.rows));
    if (values.values.device != rows.device())
        throw py::value_error(std::string(name) + ": expected values on the device of the graph");
}

/// The first value, after the same and that the values are dense and of the type.
template <class T>
T* dense(const GraphRows& rows, const PyValues& values, std::size_t columns, const char* name) {
    check_values(rows, values, name);
    if (!values.dtype.equal(py::dtype::of<T>()) || rows.of_doubles() != (sizeof(T) == sizeof(double)))
        throw py::type_error(std::string(name) + ": expected the dtype of the graph's values");
    if (values.columns != columns || columns == 0 || columns % width_step != 0 ||
        columns > cuda::most_columns)
        throw py::value_error(std::string(name) + ": expected columns of a multiple of " +
                              std::to_string(width_step) + ", as many in each and at most " +
                              std::to_string(cuda::most_columns) + ", got " + std::to_string(values.columns));
    return values.values.as<T>();
}

Doubles changes_of(const GraphRows& rows) { return Doubles(static_cast<py::ssize_t>(rows.blocks())); }

template <class T>
Doubles sweep_dense_as(GraphRows& rows, const PyValues& state, const PyValues* previous, PyValues& out,
                       double alpha, double omega) {
    graph::DenseSweep<T> sweep{};
    sweep.width = state.columns;
    const std::size_t first = rows.first_row() * state.columns;
    sweep.state = dense<T>(rows, state, state.columns, "state");
    if (previous != nullptr) sweep.previous = dense<T>(rows, *previous, state.columns, "previous") + first;
    sweep.out = dense<T>(rows, out, state.columns, "out") + first;
    if (&state == &out) throw py::value_error("out: expected other values than state, which all rows read");
    sweep.alpha = static_cast<T>(alpha);
    sweep.omega = static_cast<T>(omega);
    Doubles changes = changes_of(rows);
    sweep.changes = changes.mutable_data();
    const py::gil_scoped_release no_gil;
    rows.sweep_dense(sweep);
    return changes;
}

Doubles sweep_dense(GraphRows& rows, const PyValues& state, const PyValues* previous, PyValues& out,
                    double alpha, double omega) {
    return (rows.of_doubles() ? sweep_dense_as<double> : sweep_dense_as<float>)(rows, state, previous, out,
                                                                                alpha, omega);
}

Doubles sweep_top(GraphRows& rows, const PyValues& state, PyValues& out, double alpha) {
    static_assert(sizeof(Labelled) == 8);
    check_values(rows, state, "state");
    check_values(rows, out, "out");
    if (state.dtype.itemsize() != sizeof(Labelled) || !state.dtype.equal(out.dtype) || rows.of_doubles() ||
        state.columns != out.columns || state.columns == 0)
        throw py::type_error(
            "state, out: expected as many records of a uint32 label and a float32 value in each row");
    if (&state == &out) throw py::value_error("out: expected other values than state, which all rows read");
    graph::TopSweep sweep{};
    sweep.kept = state.columns;
    sweep.state = state.values.as<const Labelled>();
    sweep.out = out.values.as<Labelled>() + rows.first_row() * sweep.kept;
    sweep.alpha = static_cast<float>(alpha);
    Doubles changes = changes_of(rows);
    sweep.changes = changes.mutable_data();
    const py::gil_scoped_release no_gil;
    rows.sweep_top(sweep);
    return changes;
}

Doubles cg_product(GraphRows& rows, const PyValues& direction, PyValues& product, double alpha) {
    const std::size_t width = direction.columns;
    const auto* from = dense<float>(rows, direction, width, "direction");
    auto* to = dense<float>(rows, product, width, "product");
    if (from == to)
        throw py::value_error("product: expected other values than direction, which all rows read");
    Doubles dots(static_cast<py::ssize_t>(width));
    double* sums = dots.mutable_data();
    const py::gil_scoped_release no_gil;
    rows.cg_product(from, to, width, static_cast<float>(alpha), sums);
    return dots;
}

py::tuple cg_step(GraphRows& rows, PyValues& x, PyValues& residual, const PyValues& direction,
                  const PyValues& product, const py::array& step) {
    graph::CgStep of{};
    of.width = x.columns;
    of.x = dense<float>(rows, x, of.width, "x");
    of.residual = dense<float>(rows, residual, of.width, "residual");
    of.direction = dense<float>(rows, direction, of.width, "direction");
    of.product = dense<float>(rows, product, of.width, "product");
    of.step = elements<float>(step, "step", static_cast<py::ssize_t>(of.width));
    Doubles squares(static_cast<py::ssize_t>(of.width)), changes = changes_of(rows);
    of.squares = squares.mutable_data();
    of.changes = changes.mutable_data();
    {
        const py::gil_scoped_release no_gil;
        rows.cg_step(of);
    }
    return py::make_tuple(squares, changes);
}

void cg_turn(GraphRows& rows, const PyValues& residual, const py::array& ratio, PyValues& direction) {
    const std::size_t width = direction.columns;
    const auto* from = dense<float>(rows, residual, width, "residual");
    auto* to = dense<float>(rows, direction, width, "direction");
    const auto* factor = elements<float>(ratio, "ratio", static_cast<py::ssize_t>(width));
    const py::gil_scoped_release no_gil;
    rows.cg_turn(from, factor, to, width);
}

}  // namespace

void bind_cuda_graph(py::module_& m) {
    py::class_<PyValues>(m, "GraphValues")
        .def(py::init(&make_values), py::arg("rows"), py::arg("columns"), py::arg("dtype"), py::arg("device"))
        .def("write", &write, py::arg("array"), py::arg("first"))
        .def("read", &read, py::arg("array"), py::arg("first"));
    py::class_<GraphRows>(m, "GraphRows")
        .def(py::init(&make_rows), py::arg("indptr"), py::arg("indices"), py::arg("values"),
             py::arg("first_row"), py::arg("seeds"), py::arg("seed_labels"), py::arg("seed_values"),
             py::arg("clamped"), py::arg("labels"), py::arg("device"))
        .def("sweep_dense", &sweep_dense, py::arg("state"), py::arg("previous").none(true), py::arg("out"),
             py::arg("alpha"), py::arg("omega"))
        .def("sweep_top", &sweep_top, py::arg("state"), py::arg("out"), py::arg("alpha"))
        .def("cg_product", &cg_product, py::arg("direction"), py::arg("product"), py::arg("alpha"))
        .def("cg_step", &cg_step, py::arg("x"), py::arg("residual"), py::arg("direction"), py::arg("product"),
             py::arg("step"))
        .def("cg_turn", &cg_turn, py::arg("residual"), py::arg("ratio"), py::arg("direction"));
}

}  // namespace pycurate::bindings
