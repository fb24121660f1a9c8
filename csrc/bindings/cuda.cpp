// The module _core_cuda: what csrc/cuda can do, under the names that _core.fused_similarity has.
#include <pybind11/stl.h>

#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "bindings/array_checks.h"
#include "bindings/cuda_matrix.h"
#include "bindings/embeddings.h"
#include "bindings/interrupt.h"
#include "bindings/join_arrays.h"
#include "cuda/fused_similarity.h"
#include "cuda/rowwise.h"
#include "kernels/rowwise/similarity.h"

namespace pycurate::bindings {
namespace {

using namespace cuda;
using cuda::Screening;

// What the last join did, for benchmarks; guarded since calls may come from several threads.
std::mutex last_mutex;
Work last;

void remember(const Work& work) {
    const std::lock_guard lock(last_mutex);
    last = work;
}

std::map<std::string, double> last_work() {
    const std::lock_guard lock(last_mutex);
    std::map<std::string, double> result{{"tiles", static_cast<double>(last.tiles)},
                                         {"skipped", static_cast<double>(last.skipped)},
                                         {"scored_pairs", static_cast<double>(last.scored_pairs)}};
    for (std::size_t s = 0; s < last.screened.size(); ++s)
        result["stage_" + std::to_string(s)] = static_cast<double>(last.screened[s]);
    return result;
}

/// An operand and, for as long as it lives, the rows it reads.
struct PyOperand {
    py::object matrix;
    std::unique_ptr<Operand> rows;
};

std::unique_ptr<PyOperand> make_operand(const py::object& matrix, const std::optional<Integers>& rows,
                                        const std::string& metric, const std::string& precision,
                                        const Screening* screening) {
    if (precision != "exact" && precision != "float32")
        throw py::value_error("precision: expected 'exact' or 'float32', got '" + precision + "'");
    const Matrix& x = matrix.cast<const PyMatrix&>().rows;
    const std::size_t n = rows ? static_cast<std::size_t>(rows->shape(0)) : x.n;
    if (rows) check_length(*rows, n, "rows");
    if (x.n >= 1u << 31)
        throw py::value_error("x: expected fewer than 2^31 rows in one operand, got " + std::to_string(x.n) +
                              "; join blocks of them");
    const Metric measure = metric_of(metric);
    const std::int64_t* numbers = rows ? rows->data() : nullptr;
    auto result = std::make_unique<PyOperand>();
    result->matrix = matrix;
    const py::gil_scoped_release no_gil;
    result->rows = Operand::prepare(x, numbers, n, measure,
                                    precision == "exact" ? Precision::exact : Precision::float32, screening);
    return result;
}

std::unique_ptr<Screening> make_screening(const Floats& projection, double norm, const Floats& centroids) {
    check_matrix(projection, "projection");
    check_matrix(centroids, "centroids");
    const auto p = static_cast<std::size_t>(projection.shape(0)),
               d = static_cast<std::size_t>(projection.shape(1)),
               count = static_cast<std::size_t>(centroids.shape(0)),
               coordinates = static_cast<std::size_t>(centroids.shape(1));
    if ((p != 64 && p != 128) || count < 1 || coordinates > 32)
        throw py::value_error("projection, centroids: expected (64 or 128, d) and (c, at most 32), got " +
                              std::string(py::str(projection.attr("shape"))) + " and " +
                              std::string(py::str(centroids.attr("shape"))));
    if (!(norm > 0 && norm <= 1))
        throw py::value_error("norm: expected a number in (0, 1], got " + std::to_string(norm));
    return std::make_unique<Screening>(
        std::vector<float>(projection.data(), projection.data() + p * d), p, d,
        std::vector<float>(centroids.data(), centroids.data() + count * coordinates), count, coordinates,
        norm);
}

const Operand* other_of(const PyOperand& a, const PyOperand* b) {
    if (b == nullptr) return nullptr;
    const Operand &x = *a.rows, &y = *b->rows;
    if (x.d != y.d || x.x->element != y.x->element || x.x->device != y.x->device || x.metric != y.metric ||
        x.screened != y.screened || x.prefix_chunks != y.prefix_chunks || x.prefix_unit != y.prefix_unit)
        throw py::value_error(
            "b: expected an operand prepared like a: same dimension, dtype, device, metric, precision and "
            "screening");
    return &y;
}

// `threads` is there for the sake of the CPU's signature.

py::object pairs_above_(const PyOperand& a, const PyOperand* b, float threshold, std::size_t max_pairs,
                        std::size_t, const Progress& progress) {
    const Operand* other = other_of(a, b);
    std::vector<Pair> pairs;
    bool too_many = false;
    Work work;
    run([&] {
        return pairs_above(*a.rows, other, threshold, max_pairs, pairs, too_many, poll_of(progress), work);
    });
    remember(work);
    if (too_many) return py::none();
    return arrays_of(pairs);
}

py::tuple spanning_forest_above_(const PyOperand& a, const PyOperand* b, float floor, std::size_t,
                                 const Progress& progress) {
    const Operand* other = other_of(a, b);
    std::vector<Pair> edges;
    Work work;
    run([&] { return spanning_forest_above(*a.rows, other, floor, edges, poll_of(progress), work); });
    remember(work);
    return arrays_of(edges);
}

py::tuple forest_above_(const PyOperand& a, const PyOperand* b, float threshold, std::size_t,
                        const Progress& progress) {
    const Operand* other = other_of(a, b);
    std::vector<std::pair<std::int64_t, std::int64_t>> edges;
    Work work;
    run([&] { return forest_above(*a.rows, other, threshold, edges, poll_of(progress), work); });
    remember(work);
    const auto count = static_cast<py::ssize_t>(edges.size());
    Integers rows(count), cols(count);
    for (std::size_t i = 0; i < edges.size(); ++i)
        rows.mutable_data()[i] = edges[i].first, cols.mutable_data()[i] = edges[i].second;
    return py::make_tuple(rows, cols);
}

py::tuple count_above_(const PyOperand& a, const PyOperand* b, float threshold,
                       const std::optional<Integers>& weights_a, const std::optional<Integers>& weights_b,
                       std::size_t, const Progress& progress) {
    const Operand* other = other_of(a, b);
    if (weights_a) check_length(*weights_a, a.rows->n, "weights_a");
    if (weights_b) check_length(*weights_b, other != nullptr ? other->n : 0, "weights_b");
    Integers counts_a(static_cast<py::ssize_t>(a.rows->n));
    std::optional<Integers> counts_b;
    if (other != nullptr) counts_b.emplace(static_cast<py::ssize_t>(other->n));
    const std::int64_t* wa = weights_a ? weights_a->data() : nullptr;
    const std::int64_t* wb = weights_b ? weights_b->data() : nullptr;
    std::int64_t *ca = counts_a.mutable_data(), *cb = counts_b ? counts_b->mutable_data() : nullptr;
    std::fill_n(ca, a.rows->n, std::int64_t{0});
    if (other != nullptr) std::fill_n(cb, other->n, std::int64_t{0});
    Work work;
    run([&] { return count_above(*a.rows, other, threshold, wa, wb, ca, cb, poll_of(progress), work); });
    remember(work);
    return py::make_tuple(counts_a, counts_b);
}

py::tuple max_earlier_(const PyOperand& a, const PyOperand* b, const Integers& rank_a,
                       const std::optional<Integers>& rank_b, float floor, std::size_t,
                       const Progress& progress) {
    const Operand* other = other_of(a, b);
    const auto ranks_a = ranks_of(rank_a, a.rows->n, "rank_a");
    if (other != nullptr && !rank_b)
        throw py::value_error("rank_b: expected ranks of the rows of b, got None");
    const auto ranks_b =
        other != nullptr ? ranks_of(*rank_b, other->n, "rank_b") : std::vector<std::uint32_t>{};
    const auto n = static_cast<py::ssize_t>(a.rows->n);
    Integers best_a(n);
    Floats similarities_a(n);
    std::optional<Integers> best_b;
    std::optional<Floats> similarities_b;
    std::int64_t* bb = nullptr;
    float* sb = nullptr;
    if (other != nullptr) {
        bb = best_b.emplace(static_cast<py::ssize_t>(other->n)).mutable_data();
        sb = similarities_b.emplace(static_cast<py::ssize_t>(other->n)).mutable_data();
    }
    std::int64_t* ba = best_a.mutable_data();
    float* sa = similarities_a.mutable_data();
    Work work;
    run([&] {
        return max_earlier(*a.rows, other, ranks_a.data(), ranks_b.data(), floor, ba, sa, bb, sb,
                           poll_of(progress), work);
    });
    remember(work);
    return py::make_tuple(best_a, similarities_a, best_b, similarities_b);
}

void check_neighbors(std::size_t k) {
    if (k < 1 || k > most_neighbors)
        throw py::value_error("k: expected 1 to " + std::to_string(most_neighbors) + " on a GPU, got " +
                              std::to_string(k));
}

py::tuple top_k_(const PyOperand& a, const PyOperand* b, std::size_t k, bool both, std::size_t,
                 const Progress& progress) {
    const Operand* other = other_of(a, b);
    check_neighbors(k);
    const auto shape = [k](std::size_t n) {
        return std::vector<py::ssize_t>{static_cast<py::ssize_t>(n), static_cast<py::ssize_t>(k)};
    };
    Integers rows_a(shape(a.rows->n));
    Floats similarities_a(shape(a.rows->n));
    std::fill_n(rows_a.mutable_data(), a.rows->n * k, std::int64_t{-1});
    std::fill_n(similarities_a.mutable_data(), a.rows->n * k, static_cast<float>(rowwise::quiet_nan));
    std::optional<Integers> rows_b;
    std::optional<Floats> similarities_b;
    std::int64_t* rb = nullptr;
    float* sb = nullptr;
    if (other != nullptr && both) {
        rb = rows_b.emplace(shape(other->n)).mutable_data();
        sb = similarities_b.emplace(shape(other->n)).mutable_data();
    }
    std::int64_t* ra = rows_a.mutable_data();
    float* sa = similarities_a.mutable_data();
    Work work;
    run([&] { return top_k(*a.rows, other, k, ra, sa, rb, sb, poll_of(progress), work); });
    remember(work);
    return py::make_tuple(rows_a, similarities_a, rows_b, similarities_b);
}

/// `lists` is changed in place.
void add_nearest_(const PyOperand& a, const PyOperand* b, std::uint32_t first_b,
                  py::array_t<std::uint64_t>& lists, std::size_t, const Progress& progress) {
    const Operand* other = other_of(a, b);
    const std::size_t n = a.rows->n;
    if (lists.ndim() != 2 || static_cast<std::size_t>(lists.shape(0)) != n ||
        !(lists.flags() & py::array::c_style))
        throw py::value_error("lists: expected shape (" + std::to_string(n) + ", k), C order, got " +
                              std::string(py::str(lists.attr("shape"))));
    const auto k = static_cast<std::size_t>(lists.shape(1));
    check_neighbors(k);
    std::uint64_t* at = lists.mutable_data();
    Work work;
    run([&] { return add_nearest(*a.rows, other, k, first_b, at, poll_of(progress), work); });
    remember(work);
}

py::tuple log_sum_exp_(const PyOperand& a, const PyOperand& b, double scale, std::size_t,
                       const Progress& progress) {
    const Operand* other = other_of(a, &b);
    Doubles rows(static_cast<py::ssize_t>(a.rows->n)), cols(static_cast<py::ssize_t>(other->n));
    double *r = rows.mutable_data(), *c = cols.mutable_data();
    run([&] { return log_sum_exp(*a.rows, *other, scale, r, c, poll_of(progress)); });
    return py::make_tuple(rows, cols);
}

std::optional<Heads> heads_of(const std::optional<Floats>& weights, const std::optional<Floats>& bias,
                              std::size_t d, const char* name) {
    if (!weights) return std::nullopt;
    check_matrix(*weights, name);
    const auto count = static_cast<std::size_t>(weights->shape(0));
    if (static_cast<std::size_t>(weights->shape(1)) != d)
        throw py::value_error(std::string(name) + ": expected shape (h, " + std::to_string(d) + "), got " +
                              std::string(py::str(weights->attr("shape"))));
    if (!bias) throw py::value_error(std::string(name) + ": expected a bias with the weights, got None");
    check_length(*bias, count, "bias");
    return Heads{weights->data(), bias->data(), count};
}

Floats scores_of(std::size_t n, const std::optional<Heads>& heads) {
    return Floats({static_cast<py::ssize_t>(n), static_cast<py::ssize_t>(heads ? heads->count : 0)});
}

/// similarities, norms_a, norms_b, flags, heads_a, heads_b.
py::tuple score_pairs_(const PyMatrix& a, const PyMatrix& b, const std::string& metric,
                       const std::optional<Floats>& weights_a, const std::optional<Floats>& bias_a,
                       const std::optional<Floats>& weights_b, const std::optional<Floats>& bias_b) {
    if (a.rows.n != b.rows.n || a.rows.d != b.rows.d || a.rows.element != b.rows.element ||
        a.rows.device != b.rows.device)
        throw py::value_error("b: expected the shape, dtype and device of a");
    const auto n = static_cast<py::ssize_t>(a.rows.n);
    const auto heads_a = heads_of(weights_a, bias_a, a.rows.d, "weights_a");
    const auto heads_b = heads_of(weights_b, bias_b, b.rows.d, "weights_b");
    Floats similarities(n), norms_a(n), norms_b(n), out_a = scores_of(a.rows.n, heads_a),
                                                    out_b = scores_of(b.rows.n, heads_b);
    py::array_t<std::uint8_t> flags(n);
    const RowScores out{similarities.mutable_data(), norms_a.mutable_data(), norms_b.mutable_data(),
                        flags.mutable_data(),        out_a.mutable_data(),   out_b.mutable_data()};
    const Metric measure = metric_of(metric);
    {
        const py::gil_scoped_release no_gil;
        score_pairs(a.rows, b.rows, measure, heads_a ? &*heads_a : nullptr, heads_b ? &*heads_b : nullptr,
                    out);
    }
    return py::make_tuple(similarities, norms_a, norms_b, flags, heads_a ? py::object(out_a) : py::none(),
                          heads_b ? py::object(out_b) : py::none());
}

/// norms, flags, heads.
py::tuple measure_rows_(const PyMatrix& x, const std::optional<Floats>& weights,
                        const std::optional<Floats>& bias) {
    const auto heads = heads_of(weights, bias, x.rows.d, "weights");
    const auto n = static_cast<py::ssize_t>(x.rows.n);
    Floats norms(n), out = scores_of(x.rows.n, heads);
    py::array_t<std::uint8_t> flags(n);
    float *to_norms = norms.mutable_data(), *to_heads = out.mutable_data();
    std::uint8_t* to_flags = flags.mutable_data();
    {
        const py::gil_scoped_release no_gil;
        measure_rows(x.rows, heads ? &*heads : nullptr, to_norms, to_flags, to_heads);
    }
    return py::make_tuple(norms, flags, heads ? py::object(out) : py::none());
}

py::list devices_() {
    py::list result;
    for (const Device& device : devices()) {
        py::dict facts;
        facts["name"] = device.name;
        facts["capability"] = py::make_tuple(device.major, device.minor);
        facts["multiprocessors"] = device.multiprocessors;
        facts["bytes"] = device.bytes;
        facts["free_bytes"] = device.free_bytes;
        facts["supported"] = device.supported;
        result.append(facts);
    }
    return result;
}

}  // namespace
}  // namespace pycurate::bindings

PYBIND11_MODULE(_core_cuda, m, pybind11::mod_gil_not_used()) {
    using namespace pycurate::bindings;
    namespace py = pybind11;
    py::register_local_exception_translator([](std::exception_ptr raised) {
        try {
            if (raised) std::rethrow_exception(raised);
        } catch (const pycurate::cuda::Error& error) {
            PyErr_SetString(error.out_of_memory ? PyExc_MemoryError : PyExc_RuntimeError, error.what());
        }
    });
    m.def("devices", &devices_);
    m.def("free_bytes", &pycurate::cuda::free_bytes, py::arg("device"));
    m.def("versions", &pycurate::cuda::versions);
    m.attr("most_neighbors") = pycurate::cuda::most_neighbors;
    bind_cuda_matrix(m);
    py::class_<Screening>(m, "Screening")
        .def(py::init(&make_screening), py::arg("projection").noconvert(), py::arg("norm"),
             py::arg("centroids").noconvert());
    py::class_<PyOperand>(m, "Operand")
        .def(py::init(&make_operand), py::arg("x"), py::arg("rows").noconvert(), py::arg("metric"),
             py::arg("precision"), py::arg("screening"))
        .def_property_readonly("n", [](const PyOperand& o) { return o.rows->n; })
        .def_property_readonly("d", [](const PyOperand& o) { return o.rows->d; })
        .def_property_readonly("nbytes", [](const PyOperand& o) { return o.rows->bytes(); });
    m.def("score_pairs", &score_pairs_, py::arg("a"), py::arg("b"), py::arg("metric"),
          py::arg("weights_a").noconvert(), py::arg("bias_a").noconvert(), py::arg("weights_b").noconvert(),
          py::arg("bias_b").noconvert());
    m.def("measure_rows", &measure_rows_, py::arg("x"), py::arg("weights").noconvert(),
          py::arg("bias").noconvert());
    m.def("pairs_above", &pairs_above_, py::arg("a"), py::arg("b"), py::arg("threshold"),
          py::arg("max_pairs"), py::arg("threads"), py::arg("progress"));
    m.def("forest_above", &forest_above_, py::arg("a"), py::arg("b"), py::arg("threshold"),
          py::arg("threads"), py::arg("progress"));
    m.def("spanning_forest_above", &spanning_forest_above_, py::arg("a"), py::arg("b"), py::arg("floor"),
          py::arg("threads"), py::arg("progress"));
    m.def("count_above", &count_above_, py::arg("a"), py::arg("b"), py::arg("threshold"),
          py::arg("weights_a").noconvert(), py::arg("weights_b").noconvert(), py::arg("threads"),
          py::arg("progress"));
    m.def("max_earlier", &max_earlier_, py::arg("a"), py::arg("b"), py::arg("rank_a").noconvert(),
          py::arg("rank_b").noconvert(), py::arg("floor"), py::arg("threads"), py::arg("progress"));
    m.def("top_k", &top_k_, py::arg("a"), py::arg("b"), py::arg("k"), py::arg("both"), py::arg("threads"),
          py::arg("progress"));
    m.def("add_nearest", &add_nearest_, py::arg("a"), py::arg("b"), py::arg("first_b"),
          py::arg("lists").noconvert(), py::arg("threads"), py::arg("progress"));
    m.def("log_sum_exp", &log_sum_exp_, py::arg("a"), py::arg("b"), py::arg("scale"), py::arg("threads"),
          py::arg("progress"));
    m.def("last_work", &last_work);
    m.def("screen_whole_rows", &pycurate::cuda::screen_whole_rows, py::arg("always"));
}
