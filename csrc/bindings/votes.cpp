#include "kernels/votes/votes.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "bindings/array_checks.h"
#include "bindings/interrupt.h"

namespace pycurate::bindings {
namespace {

using namespace votes;
template <class T>
using Vector = py::array_t<T, py::array::c_style>;

template <class T>
void check_vector(const Vector<T>& array, const char* name, std::size_t n) {
    if (array.ndim() != 1 || static_cast<std::size_t>(array.shape(0)) != n)
        throw py::value_error(std::string(name) + ": expected shape (" + std::to_string(n) + ",), got " +
                              std::string(py::str(array.attr("shape"))));
}

template <class T>
void check_square(const Vector<T>& array, const char* name, std::size_t n) {
    check_matrix(array, name);
    if (static_cast<std::size_t>(array.shape(0)) != n || static_cast<std::size_t>(array.shape(1)) != n)
        throw py::value_error(std::string(name) + ": expected shape (" + std::to_string(n) + ", " +
                              std::to_string(n) + "), got " + std::string(py::str(array.attr("shape"))));
}

/// Every value from `least` to below `end`; none is looked up before.
template <class T>
void check_range(const Vector<T>& array, const char* name, std::int64_t least, std::int64_t end) {
    const T* values = array.data();
    for (py::ssize_t i = 0; i < array.size(); ++i)
        if (values[i] < least || values[i] >= end)
            throw py::value_error(std::string(name) + ": expected numbers from " + std::to_string(least) +
                                  " to " + std::to_string(end - 1) + ", got " + std::to_string(values[i]));
}

struct Problem {
    Lists lists;
    Voters voters;
    Asked asked;
};

Problem problem_of(const Vector<std::int64_t>& indices, const std::optional<Vector<float>>& weights,
                   std::size_t first, const Vector<std::int32_t>& labels, const Vector<std::int64_t>& nodes,
                   const Vector<std::int32_t>& own) {
    check_matrix(indices, "indices");
    if (weights) {
        check_matrix(*weights, "weights");
        if (weights->shape(0) != indices.shape(0) || weights->shape(1) != indices.shape(1))
            throw py::value_error("weights: expected the shape of indices, got " +
                                  std::string(py::str(weights->attr("shape"))));
    }
    const auto all = static_cast<std::size_t>(labels.size());
    const auto n = static_cast<std::size_t>(nodes.size());
    check_vector(labels, "labels", all);
    check_vector(nodes, "nodes", n);
    check_vector(own, "own", n);
    check_range(indices, "indices", INT64_MIN, static_cast<std::int64_t>(all));
    check_range(nodes, "nodes", 0, indices.shape(0));
    const auto count = static_cast<std::size_t>(indices.shape(0));
    if (first + count > all)
        throw py::value_error("labels: expected at least " + std::to_string(first + count) + ", got " +
                              std::to_string(all));
    return {{indices.data(), weights ? weights->data() : nullptr, count,
             static_cast<std::size_t>(indices.shape(1)), first},
            {labels.data(), all},
            {nodes.data(), own.data(), n}};
}

py::tuple cast_votes_(const Vector<std::int64_t>& indices, const std::optional<Vector<float>>& weights,
                      std::size_t first, const Vector<std::int32_t>& labels,
                      const Vector<std::int64_t>& nodes, const Vector<std::int32_t>& own, std::size_t top,
                      std::size_t threads) {
    const Problem problem = problem_of(indices, weights, first, labels, nodes, own);
    const auto n = static_cast<py::ssize_t>(problem.asked.n), most = static_cast<py::ssize_t>(top);
    Vector<std::int32_t> out_labels({n, most}), voters(n);
    Vector<float> shares({n, most}), own_shares(n), totals(n);
    const Votes out{out_labels.mutable_data(), shares.mutable_data(), top,
                    own_shares.mutable_data(), totals.mutable_data(), voters.mutable_data()};
    run([&] { return cast_votes(problem.lists, problem.voters, problem.asked, out, threads, interrupted); });
    return py::make_tuple(out_labels, shares, own_shares, totals, voters);
}

py::tuple round_votes_(const Vector<std::int64_t>& indices, const std::optional<Vector<float>>& weights,
                       std::size_t first, const Vector<std::int32_t>& labels,
                       const Vector<std::int64_t>& nodes, const Vector<std::int32_t>& own,
                       const Vector<std::uint64_t>& members, std::size_t first_round, std::size_t last_round,
                       std::size_t neighbors, bool own_vote, bool with_scores, std::size_t threads) {
    const Problem problem = problem_of(indices, weights, first, labels, nodes, own);
    check_vector(members, "members", problem.voters.all);
    if (first_round > last_round || last_round > 64)
        throw py::value_error("last_round: expected from first_round to 64, got " +
                              std::to_string(last_round));
    const auto n = static_cast<py::ssize_t>(problem.asked.n);
    Vector<std::uint8_t> flagged(n), judged(n);
    std::fill_n(flagged.mutable_data(), n, std::uint8_t{0});
    std::fill_n(judged.mutable_data(), n, std::uint8_t{0});
    Vector<float> scores({with_scores ? n : 0, static_cast<py::ssize_t>(last_round - first_round)});
    const Rounds rounds{members.data(), first_round, last_round, neighbors, own_vote};
    std::uint8_t *flags = flagged.mutable_data(), *judges = judged.mutable_data();
    float* out = with_scores ? scores.mutable_data() : nullptr;
    run([&] {
        return round_votes(problem.lists, problem.voters, problem.asked, rounds, flags, judges, out, threads,
                           interrupted);
    });
    return py::make_tuple(flagged, judged, with_scores ? py::object(scores) : py::object(py::none()));
}

void count_triples_(const Vector<std::int64_t>& indices, std::size_t first,
                    const Vector<std::int32_t>& labels, const Vector<std::int64_t>& nodes,
                    const Vector<std::int32_t>& own, std::size_t classes, Vector<std::int64_t>& counts,
                    std::size_t threads) {
    const Problem problem = problem_of(indices, std::nullopt, first, labels, nodes, own);
    if (classes > 1024)
        throw py::value_error("classes: expected at most 1024, got " + std::to_string(classes));
    check_vector(counts, "counts", classes * classes * classes);
    check_range(labels, "labels", -1, static_cast<std::int64_t>(classes));
    check_range(own, "own", -1, static_cast<std::int64_t>(classes));
    std::int64_t* out = counts.mutable_data();
    run([&] {
        return count_triples(problem.lists, problem.voters, problem.asked, classes, out, threads,
                             interrupted);
    });
}

py::tuple consensus_step_(const Vector<std::int32_t>& labels, const Vector<double>& counts,
                          const Vector<double>& given, const Vector<double>& prior, std::size_t threads) {
    const auto classes = static_cast<std::size_t>(prior.size());
    const auto m = static_cast<std::size_t>(counts.size());
    check_vector(counts, "counts", m);
    check_vector(prior, "prior", classes);
    check_square(given, "given", classes);
    check_matrix(labels, "labels");
    if (static_cast<std::size_t>(labels.shape(0)) != m || labels.shape(1) != 3)
        throw py::value_error("labels: expected shape (" + std::to_string(m) + ", 3), got " +
                              std::string(py::str(labels.attr("shape"))));
    check_range(labels, "labels", 0, static_cast<std::int64_t>(classes));
    const auto size = static_cast<py::ssize_t>(classes);
    Vector<double> sums({size, size}), prior_sums(size);
    const Triples triples{labels.data(), counts.data(), m};
    const double *g = given.data(), *p = prior.data();
    double *s = sums.mutable_data(), *q = prior_sums.mutable_data();
    double likelihood;
    {
        const py::gil_scoped_release no_gil;
        likelihood = consensus_step(triples, classes, g, p, s, q, threads);
    }
    return py::make_tuple(sums, prior_sums, likelihood);
}

}  // namespace

void bind_votes(py::module_& m) {
    m.def("cast_votes", &cast_votes_, py::arg("indices").noconvert(), py::arg("weights").noconvert(),
          py::arg("first"), py::arg("labels").noconvert(), py::arg("nodes").noconvert(),
          py::arg("own").noconvert(), py::arg("top"), py::arg("threads"));
    m.def("round_votes", &round_votes_, py::arg("indices").noconvert(), py::arg("weights").noconvert(),
          py::arg("first"), py::arg("labels").noconvert(), py::arg("nodes").noconvert(),
          py::arg("own").noconvert(), py::arg("members").noconvert(), py::arg("first_round"),
          py::arg("last_round"), py::arg("neighbors"), py::arg("own_vote"), py::arg("with_scores"),
          py::arg("threads"));
    m.def("count_triples", &count_triples_, py::arg("indices").noconvert(), py::arg("first"),
          py::arg("labels").noconvert(), py::arg("nodes").noconvert(), py::arg("own").noconvert(),
          py::arg("classes"), py::arg("counts").noconvert(), py::arg("threads"));
    m.def("consensus_step", &consensus_step_, py::arg("labels").noconvert(), py::arg("counts").noconvert(),
          py::arg("given").noconvert(), py::arg("prior").noconvert(), py::arg("threads"));
}

}  // namespace pycurate::bindings
