#include "kernels/rowwise/rowwise.h"

#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <vector>

#include "bindings/array_checks.h"
#include "bindings/embeddings.h"
#include "bindings/interrupt.h"

namespace pycurate::bindings {
namespace {

using rowwise::Element, rowwise::Heads, rowwise::Matrix, rowwise::Metric;
using Floats = py::array_t<float>;

std::string shape_of(const py::array& array) { return std::string(py::str(array.attr("shape"))); }

/// A head's output, allocated, and the views the kernels take.
struct HeadArrays {
    Heads heads{};
    std::optional<Floats> out;
};

HeadArrays heads_of(const std::optional<Floats>& weights, const std::optional<Floats>& bias,
                    const std::string& name, py::ssize_t n, py::ssize_t d) {
    HeadArrays result;
    if (!weights || !bias) return result;
    check_matrix(*weights, (name + ".weights").c_str());
    if (weights->shape(1) != d)
        throw py::value_error(name + ".weights: expected shape (h, " + std::to_string(d) +
                              ") to match the rows, got " + shape_of(*weights));
    if (bias->ndim() != 1 || bias->shape(0) != weights->shape(0) || !(bias->flags() & py::array::c_style))
        throw py::value_error(name + ".bias: expected shape (" + std::to_string(weights->shape(0)) +
                              ",), C order, one for each row of weights, got " + shape_of(*bias));
    result.out.emplace(std::vector<py::ssize_t>{n, weights->shape(0)});
    result.heads = {weights->data(), bias->data(), result.out->mutable_data(),
                    static_cast<std::size_t>(weights->shape(0))};
    return result;
}

py::tuple score_pairs(const py::array& a, const py::array& b, const std::string& element,
                      const std::string& metric, bool with_norms, const std::optional<Floats>& weights_a,
                      const std::optional<Floats>& bias_a, const std::optional<Floats>& weights_b,
                      const std::optional<Floats>& bias_b, std::size_t threads) {
    rowwise::PairRequest request{};
    request.element = element_of(element);
    request.metric = metric_of(metric);
    request.a = matrix_of(a, "a", request.element);
    request.b = matrix_of(b, "b", request.element);
    const py::ssize_t n = a.shape(0), d = a.shape(1);
    if (b.shape(0) != n || b.shape(1) != d)
        throw py::value_error("b: expected shape " + shape_of(a) + " to match a, got " + shape_of(b));
    request.n = static_cast<std::size_t>(n);
    request.d = static_cast<std::size_t>(d);
    Floats similarities(n);
    request.similarities = similarities.mutable_data();
    std::optional<Floats> norms_a, norms_b;
    std::optional<py::array_t<std::uint8_t>> flags;
    if (with_norms) {
        request.norms_a = norms_a.emplace(n).mutable_data();
        request.norms_b = norms_b.emplace(n).mutable_data();
        request.flags = flags.emplace(n).mutable_data();
    }
    const HeadArrays heads_a = heads_of(weights_a, bias_a, "heads_a", n, d);
    const HeadArrays heads_b = heads_of(weights_b, bias_b, "heads_b", n, d);
    request.heads_a = heads_a.heads;
    request.heads_b = heads_b.heads;
    bool finished;
    {
        const py::gil_scoped_release no_gil;
        finished = rowwise::score_pairs(request, threads, interrupted);
    }
    if (!finished) throw py::error_already_set();
    return py::make_tuple(similarities, norms_a, norms_b, flags, heads_a.out, heads_b.out);
}

py::tuple measure_rows(const py::array& x, const std::string& element, const std::optional<Floats>& weights,
                       const std::optional<Floats>& bias, std::size_t threads) {
    rowwise::RowRequest request{};
    request.element = element_of(element);
    request.x = matrix_of(x, "x", request.element);
    request.n = static_cast<std::size_t>(x.shape(0));
    request.d = static_cast<std::size_t>(x.shape(1));
    Floats norms(x.shape(0));
    py::array_t<std::uint8_t> flags(x.shape(0));
    request.norms = norms.mutable_data();
    request.flags = flags.mutable_data();
    const HeadArrays heads = heads_of(weights, bias, "heads", x.shape(0), x.shape(1));
    request.heads = heads.heads;
    bool finished;
    {
        const py::gil_scoped_release no_gil;
        finished = rowwise::measure_rows(request, threads, interrupted);
    }
    if (!finished) throw py::error_already_set();
    return py::make_tuple(norms, flags, heads.out);
}

py::array convert_rows(const py::array& x, const std::string& element, const std::string& to,
                       std::size_t threads) {
    rowwise::ConvertRequest request{};
    request.from = element_of(element);
    if (request.from == Element::int8)
        throw py::type_error("x: expected float32, float16 or bfloat16 to convert, got int8");
    if (to != "float32" && to != "float16" && to != "bfloat16")
        throw py::value_error("to: expected 'float32', 'float16' or 'bfloat16', got '" + to + "'");
    request.to = element_of(to);
    request.x = matrix_of(x, "x", request.from);
    request.n = static_cast<std::size_t>(x.shape(0));
    request.d = static_cast<std::size_t>(x.shape(1));
    py::array out(py::dtype(request.to == Element::bfloat16 ? "uint16" : to), {x.shape(0), x.shape(1)});
    request.out = out.mutable_data();
    bool finished;
    {
        const py::gil_scoped_release no_gil;
        finished = rowwise::convert_rows(request, threads, interrupted);
    }
    if (!finished) throw py::error_already_set();
    return out;
}

/// (clusters, d) float64.
py::array_t<double> sum_by_cluster(const py::array_t<float>& x,
                                   const std::optional<py::array_t<double>>& lengths,
                                   const py::array_t<std::int64_t>& cluster, std::size_t clusters,
                                   std::size_t block_rows, std::size_t threads) {
    const auto is_c = [](const py::array& array) { return (array.flags() & py::array::c_style) != 0; };
    if (x.ndim() != 2 || !is_c(x)) throw py::value_error("x: expected (n, d), C order");
    const auto n = static_cast<std::size_t>(x.shape(0));
    for (const py::array* of_rows : {static_cast<const py::array*>(&cluster),
                                     lengths ? static_cast<const py::array*>(&*lengths) : nullptr})
        if (of_rows != nullptr &&
            (of_rows->ndim() != 1 || static_cast<std::size_t>(of_rows->shape(0)) != n || !is_c(*of_rows)))
            throw py::value_error("cluster, lengths: expected shape (" + std::to_string(n) + ",), C order");
    if (block_rows < 1) throw py::value_error("block_rows: expected at least 1, got 0");
    const std::int64_t* numbers = cluster.data();
    for (std::size_t i = 0; i < n; ++i)
        if (numbers[i] < 0 || static_cast<std::size_t>(numbers[i]) >= clusters)
            throw py::index_error("cluster: expected numbers in [0, " + std::to_string(clusters) + "), got " +
                                  std::to_string(numbers[i]));
    py::array_t<double> out({static_cast<py::ssize_t>(clusters), x.shape(1)});
    const rowwise::ClusterRequest request{x.data(),
                                          n,
                                          static_cast<std::size_t>(x.shape(1)),
                                          lengths ? lengths->data() : nullptr,
                                          numbers,
                                          clusters,
                                          block_rows,
                                          out.mutable_data()};
    bool finished;
    {
        const py::gil_scoped_release no_gil;
        finished = rowwise::sum_by_cluster(request, threads, interrupted);
    }
    if (!finished) throw py::error_already_set();
    return out;
}

}  // namespace

void bind_rowwise(py::module_& rowwise) {
    rowwise.def("score_pairs", &score_pairs, py::arg("a"), py::arg("b"), py::arg("element"),
                py::arg("metric"), py::arg("with_norms"), py::arg("weights_a").noconvert(),
                py::arg("bias_a").noconvert(), py::arg("weights_b").noconvert(),
                py::arg("bias_b").noconvert(), py::arg("threads"));
    rowwise.def("measure_rows", &measure_rows, py::arg("x"), py::arg("element"),
                py::arg("weights").noconvert(), py::arg("bias").noconvert(), py::arg("threads"));
    rowwise.def("sum_by_cluster", &sum_by_cluster, py::arg("x").noconvert(), py::arg("lengths").noconvert(),
                py::arg("cluster").noconvert(), py::arg("clusters"), py::arg("block_rows"),
                py::arg("threads"));
    rowwise.def("convert_rows", &convert_rows, py::arg("x"), py::arg("element"), py::arg("to"),
                py::arg("threads"));
}

}  // namespace pycurate::bindings
