#include "kernels/fused_similarity/fused_similarity.h"

#include <pybind11/stl.h>
#include <time.h>

#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "bindings/array_checks.h"
#include "bindings/embeddings.h"
#include "bindings/interrupt.h"
#include "bindings/join_arrays.h"

namespace pycurate::bindings {
namespace {

using namespace fused_similarity;

// What the last join did, for benchmarks; guarded since calls may come from several threads.
std::mutex last_mutex;
Work last;
double last_preparation_seconds = 0;

void remember(const Work& work, double preparation_seconds) {
    const std::lock_guard lock(last_mutex);
    last = work;
    last_preparation_seconds = preparation_seconds;
}

double processor_seconds(clockid_t clock) noexcept {
    timespec time;
    clock_gettime(clock, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

std::map<std::string, double> last_work() {
    const std::lock_guard lock(last_mutex);
    std::map<std::string, double> result{{"tiles", static_cast<double>(last.tiles)},
                                         {"skipped", static_cast<double>(last.skipped)},
                                         {"operations", static_cast<double>(last.operations)},
                                         {"scored_tiles", static_cast<double>(last.scored_tiles)},
                                         {"preparation_seconds", last_preparation_seconds},
                                         {"scored_pairs", static_cast<double>(last.scored_pairs)}};
    for (std::size_t s = 0; s < last.screened.size(); ++s)
        result["screened_" + std::to_string(s)] = static_cast<double>(last.screened[s]);
    return result;
}

std::int64_t* numbers(Integers& array) { return array.mutable_data(); }

/// The operand and, for as long as it lives, the array it reads.
struct PyOperand {
    py::array x;
    std::unique_ptr<Operand> rows;
    double preparation_seconds = 0;  // of all threads
};

double preparation_of(const PyOperand& a, const PyOperand* b) noexcept {
    return a.preparation_seconds + (b != nullptr ? b->preparation_seconds : 0);
}

std::unique_ptr<PyOperand> make_operand(const py::array& x, const std::string& element,
                                        const std::optional<Integers>& rows, const std::string& metric,
                                        const Screening* screening, const std::string& precision,
                                        std::size_t threads) {
    if (precision != "exact" && precision != "float32")
        throw py::value_error("precision: expected 'exact' or 'float32', got '" + precision + "'");
    const Element kind = element_of(element);
    const Matrix matrix = matrix_of(x, "x", kind);
    const auto n = static_cast<std::size_t>(rows ? rows->shape(0) : x.shape(0));
    if (rows) check_length(*rows, n, "rows");
    if (n >= 1u << 31)
        throw py::value_error("x: expected fewer than 2^31 rows in one operand, got " + std::to_string(n) +
                              "; join blocks of them");
    auto result = std::make_unique<PyOperand>();
    result->x = x;
    const std::int64_t* numbers = rows ? rows->data() : nullptr;
    const auto d = static_cast<std::size_t>(x.shape(1));
    const Metric measure = metric_of(metric);
    const Progress none;
    const double start = processor_seconds(CLOCK_PROCESS_CPUTIME_ID);
    run([&] {
        result->rows = Operand::prepare(matrix, d, kind, numbers, n, measure, screening,
                                        precision == "exact" ? Precision::exact : Precision::float32, threads,
                                        poll_of(none));
        return result->rows != nullptr;
    });
    result->preparation_seconds = processor_seconds(CLOCK_PROCESS_CPUTIME_ID) - start;
    return result;
}

const Operand* other_of(const PyOperand& a, const PyOperand* b) {
    if (b == nullptr) return nullptr;
    const Operand &x = *a.rows, &y = *b->rows;
    if (x.d != y.d || x.element != y.element || x.metric != y.metric || x.kernels != y.kernels ||
        x.stages.size() != y.stages.size())
        throw py::value_error(
            "b: expected an operand prepared like a: same dimension, dtype, metric, precision, "
            "screening and instruction set");
    for (std::size_t s = 0; s < x.stages.size(); ++s)
        if (x.stages[s].coordinates != y.stages[s].coordinates || x.stages[s].scale != y.stages[s].scale)
            throw py::value_error("b: expected an operand prepared with a's screening");
    return &y;
}

void check_nodes(std::size_t n, const Integers& rows, const Integers& cols) {
    for (py::ssize_t i = 0; i < rows.size(); ++i)
        for (const std::int64_t node : {rows.data()[i], cols.data()[i]})
            if (node < 0 || static_cast<std::size_t>(node) >= n)
                throw py::value_error("rows, cols: expected numbers in [0, " + std::to_string(n) + "), got " +
                                      std::to_string(node));
}

py::object pairs_above_(const PyOperand& a, const PyOperand* b, float threshold, std::size_t max_pairs,
                        std::size_t threads, const Progress& progress) {
    const Operand* other = other_of(a, b);
    std::vector<Pair> pairs;
    bool too_many = false;
    Work work;
    run([&] {
        return pairs_above(*a.rows, other, threshold, max_pairs, pairs, too_many, threads, poll_of(progress),
                           work);
    });
    remember(work, preparation_of(a, b));
    if (too_many) return py::none();
    return arrays_of(pairs);
}

py::tuple spanning_forest_above_(const PyOperand& a, const PyOperand* b, float floor, std::size_t threads,
                                 const Progress& progress) {
    const Operand* other = other_of(a, b);
    std::vector<Pair> edges;
    Work work;
    run([&] {
        return spanning_forest_above(*a.rows, other, floor, edges, threads, poll_of(progress), work);
    });
    remember(work, preparation_of(a, b));
    return arrays_of(edges);
}

py::tuple heaviest_forest_(std::size_t n, const Integers& rows, const Integers& cols,
                           const Floats& similarities) {
    const auto count = static_cast<std::size_t>(rows.size());
    check_length(rows, count, "rows");
    check_length(cols, count, "cols");
    check_length(similarities, count, "similarities");
    if (n >= std::size_t{1} << 32)
        throw py::value_error("n: expected fewer than 2^32 nodes, got " + std::to_string(n));
    check_nodes(n, rows, cols);
    std::vector<Pair> edges(count);
    for (std::size_t i = 0; i < count; ++i) {
        edges[i] = {rows.data()[i], cols.data()[i], similarities.data()[i]};
        if (edges[i].similarity != edges[i].similarity)
            throw py::value_error("similarities: expected numbers, got NaN at " + std::to_string(i));
    }
    {
        const py::gil_scoped_release no_gil;
        heaviest_forest(n, edges);
    }
    return arrays_of(edges);
}

py::tuple forest_above_(const PyOperand& a, const PyOperand* b, float threshold, std::size_t threads,
                        const Progress& progress) {
    const Operand* other = other_of(a, b);
    std::vector<std::pair<std::int64_t, std::int64_t>> edges;
    Work work;
    run([&] { return forest_above(*a.rows, other, threshold, edges, threads, poll_of(progress), work); });
    remember(work, preparation_of(a, b));
    const auto count = static_cast<py::ssize_t>(edges.size());
    Integers rows(count), cols(count);
    for (std::size_t i = 0; i < edges.size(); ++i)
        rows.mutable_data()[i] = edges[i].first, cols.mutable_data()[i] = edges[i].second;
    return py::make_tuple(rows, cols);
}

Integers zeros(std::size_t n) {
    Integers result(static_cast<py::ssize_t>(n));
    std::fill_n(result.mutable_data(), n, std::int64_t{0});
    return result;
}

py::tuple count_above_(const PyOperand& a, const PyOperand* b, float threshold,
                       const std::optional<Integers>& weights_a, const std::optional<Integers>& weights_b,
                       std::size_t threads, const Progress& progress) {
    const Operand* other = other_of(a, b);
    if (weights_a) check_length(*weights_a, a.rows->n, "weights_a");
    if (weights_b) check_length(*weights_b, other != nullptr ? other->n : 0, "weights_b");
    Integers counts_a = zeros(a.rows->n);
    std::optional<Integers> counts_b;
    if (other != nullptr) counts_b = zeros(other->n);
    const std::int64_t* wa = weights_a ? weights_a->data() : nullptr;
    const std::int64_t* wb = weights_b ? weights_b->data() : nullptr;
    std::int64_t *ca = numbers(counts_a), *cb = counts_b ? numbers(*counts_b) : nullptr;
    Work work;
    run([&] {
        return count_above(*a.rows, other, threshold, wa, wb, ca, cb, threads, poll_of(progress), work);
    });
    remember(work, preparation_of(a, b));
    return py::make_tuple(counts_a, counts_b);
}

py::tuple max_earlier_(const PyOperand& a, const PyOperand* b, const Integers& rank_a,
                       const std::optional<Integers>& rank_b, float floor, std::size_t threads,
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
        return max_earlier(*a.rows, other, ranks_a.data(), ranks_b.data(), floor, ba, sa, bb, sb, threads,
                           poll_of(progress), work);
    });
    remember(work, preparation_of(a, b));
    return py::make_tuple(best_a, similarities_a, best_b, similarities_b);
}

py::tuple top_k_(const PyOperand& a, const PyOperand* b, std::size_t k, bool both, std::size_t threads,
                 const Progress& progress) {
    const Operand* other = other_of(a, b);
    const auto shape = [k](std::size_t n) {
        return std::vector<py::ssize_t>{static_cast<py::ssize_t>(n), static_cast<py::ssize_t>(k)};
    };
    Integers rows_a(shape(a.rows->n));
    Floats similarities_a(shape(a.rows->n));
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
    run([&] { return top_k(*a.rows, other, k, ra, sa, rb, sb, threads, poll_of(progress), work); });
    remember(work, preparation_of(a, b));
    return py::make_tuple(rows_a, similarities_a, rows_b, similarities_b);
}

py::tuple log_sum_exp_(const PyOperand& a, const PyOperand& b, double scale, std::size_t threads,
                       const Progress& progress) {
    const Operand* other = other_of(a, &b);
    py::array_t<double> rows(static_cast<py::ssize_t>(a.rows->n)), cols(static_cast<py::ssize_t>(other->n));
    double *r = rows.mutable_data(), *c = cols.mutable_data();
    Work work;
    run([&] { return log_sum_exp(*a.rows, *other, scale, r, c, threads, poll_of(progress), work); });
    remember(work, preparation_of(a, &b));
    return py::make_tuple(rows, cols);
}

Integers copies(const py::array& x, const std::string& element, std::size_t threads) {
    const Element kind = element_of(element);
    const Matrix matrix = matrix_of(x, "x", kind);
    Integers copy_of(x.shape(0));
    std::int64_t* out = copy_of.mutable_data();
    const auto n = static_cast<std::size_t>(x.shape(0)), d = static_cast<std::size_t>(x.shape(1));
    const Progress none;
    run([&] { return find_copies(matrix, n, d, kind, out, threads, poll_of(none)); });
    return copy_of;
}

py::array_t<std::uint64_t> row_hashes(const py::array& x, const std::string& element, std::size_t threads) {
    const Element kind = element_of(element);
    const Matrix matrix = matrix_of(x, "x", kind);
    py::array_t<std::uint64_t> hashes(x.shape(0));
    std::uint64_t* out = hashes.mutable_data();
    const auto n = static_cast<std::size_t>(x.shape(0)), d = static_cast<std::size_t>(x.shape(1));
    const Progress none;
    run([&] { return hash_rows(matrix, n, d, kind, out, threads, poll_of(none)); });
    return hashes;
}

Integers components(std::size_t n, const Integers& rows, const Integers& cols) {
    const auto edges = static_cast<std::size_t>(rows.shape(0));
    check_length(rows, edges, "rows");
    check_length(cols, edges, "cols");
    check_nodes(n, rows, cols);
    Integers labels(static_cast<py::ssize_t>(n));
    label_components(n, rows.data(), cols.data(), edges, labels.mutable_data());
    return labels;
}

std::unique_ptr<Screening> make_screening(const Floats& projection, std::vector<std::size_t> stages,
                                          std::vector<float> norms, const Floats& centroids) {
    check_matrix(projection, "projection");
    check_matrix(centroids, "centroids");
    const auto p = static_cast<std::size_t>(projection.shape(0)),
               d = static_cast<std::size_t>(projection.shape(1));
    const auto cluster_coordinates = static_cast<std::size_t>(centroids.shape(1));
    if (cluster_coordinates > p)
        throw py::value_error("centroids: expected shape (c, at most " + std::to_string(p) +
                              ") in the first coordinates of projection, got " +
                              std::string(py::str(centroids.attr("shape"))));
    if (norms.size() != stages.size())
        throw py::value_error("norms: expected one a stage, " + std::to_string(stages.size()) + ", got " +
                              std::to_string(norms.size()));
    std::size_t previous = 15;
    for (std::size_t s = 0; s < stages.size(); previous = stages[s++]) {
        if (stages[s] <= previous || stages[s] > p || (stages[s] & (stages[s] - 1)) != 0)
            throw py::value_error("stages: expected rising powers of two from 16 to " + std::to_string(p) +
                                  ", got " + std::to_string(stages[s]));
        if (!(norms[s] > 0 && norms[s] <= 1))
            throw py::value_error("norms: expected numbers in (0, 1], got " + std::to_string(norms[s]));
    }
    return std::make_unique<Screening>(projection.data(), p, d, centroids.data(),
                                       static_cast<std::size_t>(centroids.shape(0)), cluster_coordinates,
                                       std::move(stages), std::move(norms));
}

Floats products_(const Floats& a, const Floats& b, std::size_t threads) {
    check_matrix(a, "a");
    check_matrix(b, "b");
    if (a.shape(1) != b.shape(1))
        throw py::value_error("b: expected " + std::to_string(a.shape(1)) + " columns as a, got " +
                              std::to_string(b.shape(1)));
    Floats out({a.shape(0), b.shape(0)});
    const auto m = static_cast<std::size_t>(a.shape(0)), n = static_cast<std::size_t>(b.shape(0)),
               d = static_cast<std::size_t>(a.shape(1));
    const float *x = a.data(), *y = b.data();
    float* result = out.mutable_data();
    const py::gil_scoped_release no_gil;
    products(x, m, y, n, d, result, threads);
    return out;
}

Floats orthonormalise_(const Floats& rows) {
    check_matrix(rows, "rows");
    if (rows.shape(0) > rows.shape(1))
        throw py::value_error("rows: expected no more rows than columns, got " +
                              std::string(py::str(rows.attr("shape"))));
    Floats out({rows.shape(0), rows.shape(1)});
    const auto count = static_cast<std::size_t>(rows.shape(0)), d = static_cast<std::size_t>(rows.shape(1));
    const float* x = rows.data();
    float* result = out.mutable_data();
    const py::gil_scoped_release no_gil;
    orthonormalise(x, count, d, result);
    return out;
}

/// Operations a second (a multiply-add is two) of one thread.
double peak_rate(const std::string& kind, double seconds) {
    if (kind != "int8" && kind != "float32")
        throw py::value_error("kind: expected 'int8' or 'float32', got '" + kind + "'");
    const py::gil_scoped_release no_gil;
    const Kernels& kernels = active_kernels();
    const auto burn = kind == "int8" ? kernels.burn_bytes : kernels.burn_floats;
    // The thread's own time: another process on its core is not the machine's limit.
    const auto now = [] { return processor_seconds(CLOCK_THREAD_CPUTIME_ID); };
    const double start = now();
    double operations = 0, passed = 0;
    do {
        operations += 2.0 * static_cast<double>(burn(1 << 16));
        passed = now() - start;
    } while (passed < seconds && operations > 0);
    return operations / passed;
}

}  // namespace

void bind_fused_similarity(py::module_& m) {
    py::class_<Screening>(m, "Screening")
        .def(py::init(&make_screening), py::arg("projection").noconvert(), py::arg("stages"),
             py::arg("norms"), py::arg("centroids").noconvert());
    py::class_<PyOperand>(m, "Operand")
        .def(py::init(&make_operand), py::arg("x").noconvert(), py::arg("element"),
             py::arg("rows").noconvert(), py::arg("metric"), py::arg("screening"), py::arg("precision"),
             py::arg("threads"))
        .def_property_readonly("n", [](const PyOperand& o) { return o.rows->n; })
        .def_property_readonly("d", [](const PyOperand& o) { return o.rows->d; })
        .def_property_readonly("nbytes", [](const PyOperand& o) { return o.rows->bytes(); });
    m.def("row_hashes", &row_hashes, py::arg("x").noconvert(), py::arg("element"), py::arg("threads"));
    m.def("copies", &copies, py::arg("x").noconvert(), py::arg("element"), py::arg("threads"));
    m.def("pairs_above", &pairs_above_, py::arg("a"), py::arg("b"), py::arg("threshold"),
          py::arg("max_pairs"), py::arg("threads"), py::arg("progress"));
    m.def("forest_above", &forest_above_, py::arg("a"), py::arg("b"), py::arg("threshold"),
          py::arg("threads"), py::arg("progress"));
    m.def("spanning_forest_above", &spanning_forest_above_, py::arg("a"), py::arg("b"), py::arg("floor"),
          py::arg("threads"), py::arg("progress"));
    m.def("heaviest_forest", &heaviest_forest_, py::arg("n"), py::arg("rows").noconvert(),
          py::arg("cols").noconvert(), py::arg("similarities").noconvert());
    m.def("count_above", &count_above_, py::arg("a"), py::arg("b"), py::arg("threshold"),
          py::arg("weights_a").noconvert(), py::arg("weights_b").noconvert(), py::arg("threads"),
          py::arg("progress"));
    m.def("max_earlier", &max_earlier_, py::arg("a"), py::arg("b"), py::arg("rank_a").noconvert(),
          py::arg("rank_b").noconvert(), py::arg("floor"), py::arg("threads"), py::arg("progress"));
    m.def("top_k", &top_k_, py::arg("a"), py::arg("b"), py::arg("k"), py::arg("both"), py::arg("threads"),
          py::arg("progress"));
    m.def("log_sum_exp", &log_sum_exp_, py::arg("a"), py::arg("b"), py::arg("scale"), py::arg("threads"),
          py::arg("progress"));
    m.def("components", &components, py::arg("n"), py::arg("rows").noconvert(), py::arg("cols").noconvert());
    m.def("products", &products_, py::arg("a").noconvert(), py::arg("b").noconvert(), py::arg("threads"));
    m.def("orthonormalise", &orthonormalise_, py::arg("rows").noconvert());
    m.def("last_work", &last_work);
    m.def("peak_rate", &peak_rate, py::arg("kind"), py::arg("seconds"));
}

}  // namespace pycurate::bindings
