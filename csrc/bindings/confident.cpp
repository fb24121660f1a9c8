#include "bindings/confident_arrays.h"

#include <vector>

#include "bindings/interrupt.h"

namespace pycurate::bindings {
namespace {

py::tuple summarise(const py::array& pred_probs, const Labels& labels, const Doubles& bounds,
                    std::size_t threads) {
    const Checked checked = checked_rows(pred_probs, &labels);
    check_length(bounds, "bounds", checked.rows.k);
    const auto n = static_cast<py::ssize_t>(checked.rows.n);
    Doubles self(n), other(n), sums(n), least(n);
    py::array_t<std::int32_t> predicted(n), guess(n);
    const confident::Summary out{self.mutable_data(),  other.mutable_data(), predicted.mutable_data(),
                                 guess.mutable_data(), sums.mutable_data(),  least.mutable_data()};
    const double* limits = bounds.data();
    run([&] {
        return confident::summarise(checked.element, checked.rows, limits, out, threads, interrupted);
    });
    return py::make_tuple(self, other, predicted, guess, sums, least);
}

Doubles entropies(const py::array& pred_probs, std::size_t threads) {
    const Checked checked = checked_rows(pred_probs, nullptr);
    Doubles out(static_cast<py::ssize_t>(checked.rows.n));
    double* place = out.mutable_data();
    run([&] { return confident::entropies(checked.element, checked.rows, place, threads, interrupted); });
    return out;
}

Doubles self_probabilities(const py::array& pred_probs, const Labels& labels, std::size_t threads) {
    const Checked checked = checked_rows(pred_probs, &labels);
    Doubles out(static_cast<py::ssize_t>(checked.rows.n));
    double* place = out.mutable_data();
    run([&] {
        return confident::self_probabilities(checked.element, checked.rows, place, threads, interrupted);
    });
    return out;
}

void add_class_sums(const Doubles& self, const Labels& labels, Doubles& sums, Doubles& rests,
                    Labels& counts) {
    const auto n = static_cast<std::size_t>(self.size());
    check_length(self, "self", n);
    const auto k = static_cast<std::size_t>(sums.size());
    check_length(sums, "sums", k);
    check_length(rests, "rests", k);
    check_length(counts, "counts", k);
    const std::int64_t* y = checked_labels(labels, n, k);
    double *into = sums.mutable_data(), *beside = rests.mutable_data();
    std::int64_t* rows = counts.mutable_data();
    const double* p = self.data();
    const py::gil_scoped_release no_gil;
    confident::add_class_sums(p, y, n, into, beside, rows);
}

template <class Number>
std::vector<Number> vector_of(const py::array_t<Number, py::array::c_style>& array) {
    return {array.data(), array.data() + array.size()};
}

confident::MarginCandidates make_candidates(std::vector<std::int64_t> offsets,
                                            std::vector<std::int32_t> columns,
                                            std::vector<std::int64_t> wanted) {
    bool good = offsets.size() >= 2 && offsets.front() == 0 && columns.size() == wanted.size() &&
                offsets.back() == static_cast<std::int64_t>(columns.size());
    for (std::size_t k = 0; good && k + 1 < offsets.size(); ++k) good = offsets[k] <= offsets[k + 1];
    if (!good)
        throw py::value_error(
            "offsets: expected rising positions from 0 to the number of columns and wanted");
    const auto classes = static_cast<std::int64_t>(offsets.size()) - 1;
    for (std::size_t p = 0; p < columns.size(); ++p)
        if (columns[p] < 0 || columns[p] >= classes || wanted[p] < 1)
            throw py::value_error("columns, wanted: expected a class and at least 1 row of each pair");
    return {std::move(offsets), std::move(columns), std::move(wanted)};
}

void add_rows(confident::MarginCandidates& candidates, std::size_t classes, const py::array& pred_probs,
              const Labels& labels, std::int64_t first, std::size_t threads) {
    const Checked checked = checked_rows(pred_probs, &labels);
    if (checked.rows.k != classes)
        throw py::value_error("pred_probs: expected " + std::to_string(classes) + " columns, got " +
                              std::to_string(checked.rows.k));
    run([&] { return candidates.add(checked.element, checked.rows, first, threads, interrupted); });
}

struct Candidates {
    std::size_t classes;
    confident::MarginCandidates kept;
};

}  // namespace

void bind_confident(py::module_& m) {
    m.def("summarise", &summarise, py::arg("pred_probs"), py::arg("labels").noconvert(),
          py::arg("bounds").noconvert(), py::arg("threads"),
          "(self, other, predicted, guess, sums, least) of each row.");
    m.def("entropies", &entropies, py::arg("pred_probs"), py::arg("threads"));
    m.def("self_probabilities", &self_probabilities, py::arg("pred_probs"), py::arg("labels").noconvert(),
          py::arg("threads"));
    m.def("add_class_sums", &add_class_sums, py::arg("self"), py::arg("labels").noconvert(),
          py::arg("sums").noconvert(), py::arg("rests").noconvert(), py::arg("counts").noconvert());
    py::class_<Candidates>(m, "MarginCandidates")
        .def(py::init([](const Labels& offsets, const py::array_t<std::int32_t, py::array::c_style>& columns,
                         const Labels& wanted) {
                 auto kept = make_candidates(vector_of(offsets), vector_of(columns), vector_of(wanted));
                 return Candidates{static_cast<std::size_t>(offsets.size()) - 1, std::move(kept)};
             }),
             py::arg("offsets").noconvert(), py::arg("columns").noconvert(), py::arg("wanted").noconvert())
        .def(
            "add",
            [](Candidates& self, const py::array& pred_probs, const Labels& labels, std::int64_t first,
               std::size_t threads) {
                add_rows(self.kept, self.classes, pred_probs, labels, first, threads);
            },
            py::arg("pred_probs"), py::arg("labels").noconvert(), py::arg("first"), py::arg("threads"))
        .def("rows", [](const Candidates& self) {
            const std::vector<std::int64_t> rows = self.kept.rows();
            return py::array_t<std::int64_t>(static_cast<py::ssize_t>(rows.size()), rows.data());
        });
}

}  // namespace pycurate::bindings
