#include "bindings/graph_arrays.h"

#include <pybind11/stl.h>

#include <utility>

#include "bindings/interrupt.h"

namespace pycurate::bindings {
namespace {

using namespace graph;
using Floats = py::array_t<float>;
using Doubles = py::array_t<double>;

template <class T>
py::array_t<T> owned(std::vector<T>&& values) {
    auto* held = new std::vector<T>(std::move(values));
    const py::capsule owner(held, [](void* p) { delete static_cast<std::vector<T>*>(p); });
    return py::array_t<T>(static_cast<py::ssize_t>(held->size()), held->data(), owner);
}

py::object first_misplaced(const py::array& indptr, const py::array& indices) {
    Edges<float> edges{elements<std::uint64_t>(indptr, "indptr"),   nullptr,
                       indices.dtype().equal(py::dtype("uint64")),  nullptr,
                       static_cast<std::size_t>(indptr.size() - 1), 0};
    edges.indices = edges.wide ? static_cast<const void*>(elements<std::uint64_t>(indices, "indices"))
                               : static_cast<const void*>(elements<std::uint32_t>(indices, "indices"));
    std::size_t row = 0;
    bool good = false;
    {
        const py::gil_scoped_release no_gil;
        good = is_graph(edges, row);
    }
    return good ? py::object(py::none()) : py::object(py::int_(row));
}

template <class Index>
py::tuple arrays_of(Graph<Index>&& made) {
    return py::make_tuple(owned(std::move(made.indptr)), owned(std::move(made.indices)),
                          owned(std::move(made.values)));
}

template <class Index>
std::pair<py::object, std::size_t> prepared_as(const Edges<float>& edges, bool both_ways,
                                               std::size_t threads) {
    Graph<Index> made;
    std::size_t repeated = edges.rows;
    run([&] {
        if (!without_loops(edges, made, repeated, threads, interrupted)) return false;
        if (!both_ways || repeated < edges.rows) return true;
        const Edges<float> from{made.indptr.data(), made.indices.data(), edges.wide,
                                made.values.data(), edges.rows,          0};
        Graph<Index> back, sum;
        transpose(from, back);
        if (!add(made, back, sum, threads, interrupted)) return false;
        made = std::move(sum);
        return true;
    });
    return {arrays_of(std::move(made)), repeated};
}

py::object prepared(const py::array& indptr, const py::array& indices, const py::array& values,
                    std::size_t first_row, bool both_ways, std::size_t threads) {
    const auto edges = edges_of<float>(indptr, indices, values, first_row);
    const auto made = edges.wide ? prepared_as<std::uint64_t>(edges, both_ways, threads)
                                 : prepared_as<std::uint32_t>(edges, both_ways, threads);
    if (made.second < edges.rows) return py::int_(made.second);
    return made.first;
}

py::tuple transposed(const py::array& indptr, const py::array& indices, const py::array& values) {
    const auto edges = edges_of<float>(indptr, indices, values);
    const auto as = [&]<class Index>(Graph<Index> made) {
        {
            const py::gil_scoped_release no_gil;
            transpose(edges, made);
        }
        return arrays_of(std::move(made));
    };
    return edges.wide ? as(Graph<std::uint64_t>{}) : as(Graph<std::uint32_t>{});
}

Doubles row_sums_(const py::array& indptr, const py::array& indices, const py::array& values,
                  std::size_t threads) {
    const auto edges = edges_of<float>(indptr, indices, values);
    Doubles sums(static_cast<py::ssize_t>(edges.rows));
    double* out = sums.mutable_data();
    run([&] { return row_sums(edges, out, threads, interrupted); });
    return sums;
}

void add_column_sums_(const py::array& indptr, const py::array& indices, const py::array& values,
                      py::array sums) {
    const auto edges = edges_of<float>(indptr, indices, values);
    double* out = writable<double>(sums, "sums", sums.size());
    const py::gil_scoped_release no_gil;
    add_column_sums(edges, out);
}

template <class T>
py::array_t<T> scaled(const py::array& indptr, const py::array& indices, const py::array& values,
                      const py::array& left, const py::array& right, std::size_t threads) {
    const auto edges = edges_of<float>(indptr, indices, values);
    const auto* of_rows = elements<double>(left, "left", static_cast<py::ssize_t>(edges.rows));
    const auto* of_columns = elements<double>(right, "right");
    py::array_t<T> out(values.size());
    T* into = out.mutable_data();
    run([&] { return scale(edges, of_rows, of_columns, into, threads, interrupted); });
    return out;
}

template <class T>
Doubles sweep_dense_as(const py::array& indptr, const py::array& indices, const py::array& values,
                       std::size_t first_row, const Optional& seeds, const Optional& seed_labels,
                       const Optional& seed_values, const Optional& clamped, const py::array& state,
                       const Optional& previous, py::array& out, double alpha, double omega,
                       std::size_t threads) {
    DenseSweep<T> sweep{};
    sweep.width = width_of(state, "state");
    sweep.edges = edges_of<T>(indptr, indices, values, first_row);
    check_rows(state, sweep.edges);
    sweep.seeds = seeds_of<T>(seeds, seed_labels, seed_values, clamped, sweep.edges.rows, sweep.width);
    const auto size = static_cast<py::ssize_t>(sweep.edges.rows * sweep.width);
    sweep.state = elements<T>(state, "state");
    if (previous) sweep.previous = elements<T>(*previous, "previous", size);
    sweep.out = writable<T>(out, "out", size);
    sweep.alpha = static_cast<T>(alpha);
    sweep.omega = static_cast<T>(omega);
    Doubles changes(blocks_of(sweep.edges.rows));
    sweep.changes = changes.mutable_data();
    run([&] { return sweep_dense(sweep, threads, interrupted); });
    return changes;
}

Doubles sweep_dense_(const py::array& indptr, const py::array& indices, const py::array& values,
                     std::size_t first_row, const Optional& seeds, const Optional& seed_labels,
                     const Optional& seed_values, const Optional& clamped, const py::array& state,
                     const Optional& previous, py::array out, double alpha, double omega,
                     std::size_t threads) {
    const bool is_double = state.dtype().equal(py::dtype::of<double>());
    return (is_double ? sweep_dense_as<double> : sweep_dense_as<float>)(indptr, indices, values, first_row,
                                                                        seeds, seed_labels, seed_values,
                                                                        clamped, state, previous, out, alpha,
                                                                        omega, threads);
}

Doubles sweep_top_(const py::array& indptr, const py::array& indices, const py::array& values,
                   std::size_t first_row, const Optional& seeds, const Optional& seed_labels,
                   const Optional& seed_values, const Optional& clamped, const py::array& state,
                   py::array out, std::size_t labels, double alpha, std::size_t threads) {
    static_assert(sizeof(Labelled) == sizeof(std::uint64_t));
    check_matrix(state, "state");
    if (state.itemsize() != sizeof(Labelled) || out.itemsize() != sizeof(Labelled))
        throw py::type_error("state, out: expected records of a uint32 label and a float32 value");
    TopSweep sweep{};
    sweep.kept = static_cast<std::size_t>(state.shape(1));
    if (sweep.kept == 0) throw py::value_error("state: expected at least one column");
    sweep.labels = labels;
    sweep.edges = edges_of<float>(indptr, indices, values, first_row);
    check_rows(state, sweep.edges);
    sweep.seeds = seeds_of<float>(seeds, seed_labels, seed_values, clamped, sweep.edges.rows, labels);
    const auto size = static_cast<py::ssize_t>(sweep.edges.rows * sweep.kept);
    if (!(out.flags() & py::array::c_style) || !out.writeable() || out.size() != size)
        throw py::value_error("out: expected " + std::to_string(size) + " writable records in C order");
    sweep.state = static_cast<const Labelled*>(state.data());
    sweep.out = static_cast<Labelled*>(out.mutable_data());
    sweep.alpha = static_cast<float>(alpha);
    Doubles changes(blocks_of(sweep.edges.rows));
    sweep.changes = changes.mutable_data();
    run([&] { return sweep_top(sweep, threads, interrupted); });
    return changes;
}

Doubles cg_product_(const py::array& indptr, const py::array& indices, const py::array& values,
                    const Optional& clamped, const py::array& direction, py::array product, double alpha,
                    std::size_t threads) {
    const std::size_t width = width_of(direction, "direction");
    const auto edges = edges_of<float>(indptr, indices, values);
    const auto size = static_cast<py::ssize_t>(edges.rows * width);
    const auto* from = elements<float>(direction, "direction", size);
    float* into = writable<float>(product, "product", size);
    const auto* held =
        clamped ? elements<std::uint8_t>(*clamped, "clamped", static_cast<py::ssize_t>(edges.rows)) : nullptr;
    Doubles dots(static_cast<py::ssize_t>(width));
    double* sums = dots.mutable_data();
    run([&] {
        return cg_product(edges, held, from, into, width, static_cast<float>(alpha), sums, threads,
                          interrupted);
    });
    return dots;
}

py::tuple cg_step_(py::array x, py::array residual, const py::array& direction, const py::array& product,
                   const py::array& step, std::size_t threads) {
    CgStep of{};
    of.width = width_of(x, "x");
    of.rows = static_cast<std::size_t>(x.shape(0));
    const py::ssize_t size = x.size();
    of.x = writable<float>(x, "x", size);
    of.residual = writable<float>(residual, "residual", size);
    of.direction = elements<float>(direction, "direction", size);
    of.product = elements<float>(product, "product", size);
    of.step = elements<float>(step, "step", static_cast<py::ssize_t>(of.width));
    Doubles squares(static_cast<py::ssize_t>(of.width)), changes(blocks_of(of.rows));
    of.squares = squares.mutable_data();
    of.changes = changes.mutable_data();
    run([&] { return cg_step(of, threads, interrupted); });
    return py::make_tuple(squares, changes);
}

void cg_turn_(const py::array& residual, const py::array& ratio, py::array direction, std::size_t threads) {
    const std::size_t width = width_of(direction, "direction");
    const auto rows = static_cast<std::size_t>(direction.shape(0));
    const auto* from = elements<float>(residual, "residual", direction.size());
    const auto* factor = elements<float>(ratio, "ratio", static_cast<py::ssize_t>(width));
    float* into = writable<float>(direction, "direction", direction.size());
    run([&] { return cg_turn(from, factor, into, rows, width, threads, interrupted); });
}

}  // namespace

void bind_graph(py::module_& m) {
    m.attr("block_rows") = block_rows;
    m.attr("width_step") = width_step;
    m.def("first_misplaced", &first_misplaced, py::arg("indptr"), py::arg("indices"));
    m.def("prepared", &prepared, py::arg("indptr"), py::arg("indices"), py::arg("values"),
          py::arg("first_row"), py::arg("both_ways"), py::arg("threads"));
    m.def("transposed", &transposed, py::arg("indptr"), py::arg("indices"), py::arg("values"));
    m.def("row_sums", &row_sums_, py::arg("indptr"), py::arg("indices"), py::arg("values"),
          py::arg("threads"));
    m.def("add_column_sums", &add_column_sums_, py::arg("indptr"), py::arg("indices"), py::arg("values"),
          py::arg("sums"));
    m.def("scaled_float", &scaled<float>, py::arg("indptr"), py::arg("indices"), py::arg("values"),
          py::arg("left"), py::arg("right"), py::arg("threads"));
    m.def("scaled_double", &scaled<double>, py::arg("indptr"), py::arg("indices"), py::arg("values"),
          py::arg("left"), py::arg("right"), py::arg("threads"));
    m.def("sweep_dense", &sweep_dense_, py::arg("indptr"), py::arg("indices"), py::arg("values"),
          py::arg("first_row"), py::arg("seeds"), py::arg("seed_labels"), py::arg("seed_values"),
          py::arg("clamped"), py::arg("state"), py::arg("previous"), py::arg("out"), py::arg("alpha"),
          py::arg("omega"), py::arg("threads"));
    m.def("sweep_top", &sweep_top_, py::arg("indptr"), py::arg("indices"), py::arg("values"),
          py::arg("first_row"), py::arg("seeds"), py::arg("seed_labels"), py::arg("seed_values"),
          py::arg("clamped"), py::arg("state"), py::arg("out"), py::arg("labels"), py::arg("alpha"),
          py::arg("threads"));
    m.def("cg_product", &cg_product_, py::arg("indptr"), py::arg("indices"), py::arg("values"),
          py::arg("clamped"), py::arg("direction"), py::arg("product"), py::arg("alpha"), py::arg("threads"));
    m.def("cg_step", &cg_step_, py::arg("x"), py::arg("residual"), py::arg("direction"), py::arg("product"),
          py::arg("step"), py::arg("threads"));
    m.def("cg_turn", &cg_turn_, py::arg("residual"), py::arg("ratio"), py::arg("direction"),
          py::arg("threads"));
}

}  // namespace pycurate::bindings
