#include "kernels/selection/selection.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/array_checks.h"
#include "bindings/interrupt.h"
#include "common/aligned_buffer.h"

namespace pycurate::bindings {
namespace {

using namespace selection;

template <class T>
using Vector = py::array_t<T, py::array::c_style>;
using Weights = std::optional<Vector<double>>;
using Allowed = std::optional<Vector<bool>>;
using Names = std::optional<Vector<std::uint32_t>>;

template <class T>
void check_length(const Vector<T>& array, const char* name, std::size_t n) {
    if (array.ndim() != 1 || static_cast<std::size_t>(array.shape(0)) != n)
        throw py::value_error(std::string(name) + ": expected shape (" + std::to_string(n) + ",), got " +
                              std::string(py::str(array.attr("shape"))));
}

Rows rows_of(Vector<float>& covered, Vector<std::uint32_t>& representative, const Weights& weights) {
    const auto n = static_cast<std::size_t>(covered.size());
    check_length(covered, "covered", n);
    check_length(representative, "representative", n);
    if (weights) check_length(*weights, "weights", n);
    return {covered.mutable_data(), representative.mutable_data(), weights ? weights->data() : nullptr, n};
}

const std::uint8_t* allowed_of(const Allowed& allowed, std::size_t count) {
    if (!allowed) return nullptr;
    check_length(*allowed, "allowed", count);
    return reinterpret_cast<const std::uint8_t*>(allowed->data());
}

const std::uint32_t* names_of(const Names& names, std::size_t count) {
    if (!names) return nullptr;
    check_length(*names, "names", count);
    return names->data();
}

using Greedy = std::tuple<Vector<std::uint32_t>, Vector<double>, std::uint64_t>;

template <class Candidates>
Greedy greedy_(const Candidates& all, const Rows& rows, Vector<double>& gains, const Names& names,
               std::size_t k, const Progress& progress) {
    check_length(gains, "gains", all.count);
    const std::uint32_t* named = names_of(names, all.count);
    k = std::min(k, all.count);
    std::vector<std::uint32_t> candidates(k);
    std::vector<double> gained(k);
    Picks picks{candidates.data(), gained.data(), 0};
    double* start = gains.mutable_data();
    std::size_t made = 0;
    run([&] {
        bool stopped = false;
        made = pick_greedily(all, rows, start, named, k, picks, stopped, poll_of(progress));
        return !stopped;
    });
    const auto size = static_cast<py::ssize_t>(made);
    return {Vector<std::uint32_t>(size, candidates.data()), Vector<double>(size, gained.data()),
            picks.evaluations};
}

void check_chosen(const Vector<std::uint32_t>& chosen, std::size_t candidates) {
    const std::uint32_t *first = chosen.data(), *last = first + chosen.size();
    if (std::any_of(first, last, [&](std::uint32_t c) { return c >= candidates; }))
        throw py::value_error("chosen: expected candidates below " + std::to_string(candidates));
}

template <class Candidates>
void cover_(const Candidates& all, const Vector<std::uint32_t>& chosen, const Names& names,
            const Rows& rows) {
    const auto count = static_cast<std::size_t>(chosen.size());
    check_length(chosen, "chosen", count);
    const std::uint32_t *first = chosen.data(), *named = names_of(names, all.count);
    check_chosen(chosen, all.count);
    const py::gil_scoped_release no_gil;
    cover(all, first, count, named, rows);
}

/// Columns of a sparse matrix, built from its rows in two passes: count every block, then place every block.
class Columns {
  public:
    Columns(std::size_t count, std::size_t rows) : rows_(rows), starts_(count + 1), ends_(count) {
        if (rows >= none || count >= none) throw py::value_error("count, rows: expected fewer than 2^32 - 1");
    }

    void count(const Vector<std::uint64_t>& ends, const Vector<std::uint32_t>& columns,
               const Vector<float>& similarities, const Vector<std::uint32_t>& selves,
               const Vector<float>& self_similarities) {
        if (counted_) throw py::value_error("count: expected all blocks to be counted before one is placed");
        const Edges edges = edges_of(ends, columns, similarities, selves, self_similarities, 0);
        const py::gil_scoped_release no_gil;
        count_entries(edges, starts_.data() + 1);
    }

    void place(const Vector<std::uint64_t>& ends, const Vector<std::uint32_t>& columns,
               const Vector<float>& similarities, const Vector<std::uint32_t>& selves,
               const Vector<float>& self_similarities) {
        const Edges edges = edges_of(ends, columns, similarities, selves, self_similarities, placed_);
        if (!counted_) {
            counted_ = true;
            for (std::size_t c = 0; c < ends_.size(); ++c) {
                starts_[c + 1] += starts_[c];
                ends_[c] = starts_[c];
            }
            entries_ = AlignedBuffer<std::uint32_t>(starts_.back());
            similarities_ = AlignedBuffer<float>(starts_.back());
        }
        placed_ += static_cast<std::uint32_t>(edges.rows);
        bool as_counted;
        {
            const py::gil_scoped_release no_gil;
            as_counted =
                place_entries(edges, starts_.data(), ends_.data(), entries_.data(), similarities_.data());
        }
        if (!as_counted)
            throw py::value_error("place: expected the blocks that were counted, got one with more edges");
    }

    Vector<double> gains(Vector<float>& covered, Vector<std::uint32_t>& representative,
                         const Weights& weights, const Allowed& allowed, std::size_t threads) const {
        const Rows rows = checked(covered, representative, weights);
        const std::uint8_t* mask = allowed_of(allowed, ends_.size());
        Vector<double> result(static_cast<py::ssize_t>(ends_.size()));
        double* out = result.mutable_data();
        run([&] { return gains_of(all(), rows, mask, out, threads, interrupted); });
        return result;
    }

    Greedy greedy(Vector<float>& covered, Vector<std::uint32_t>& representative, const Weights& weights,
                  Vector<double>& start, const Names& names, std::size_t k, const Progress& progress) const {
        return greedy_(all(), checked(covered, representative, weights), start, names, k, progress);
    }

    void cover(const Vector<std::uint32_t>& chosen, const Names& names, Vector<float>& covered,
               Vector<std::uint32_t>& representative) const {
        cover_(all(), chosen, names, checked(covered, representative, {}));
    }

    Vector<std::int32_t> count_better(const Vector<std::uint32_t>& chosen,
                                      const Vector<float>& covered) const {
        check_length(covered, "covered", rows_);
        check_chosen(chosen, ends_.size());
        Vector<std::int32_t> counts(static_cast<py::ssize_t>(rows_));
        std::int32_t* out = counts.mutable_data();
        std::fill_n(out, rows_, 0);
        const py::gil_scoped_release no_gil;
        selection::count_better(all(), chosen.data(), static_cast<std::size_t>(chosen.size()), covered.data(),
                                out);
        return counts;
    }

  private:
    Edges edges_of(const Vector<std::uint64_t>& ends, const Vector<std::uint32_t>& columns,
                   const Vector<float>& similarities, const Vector<std::uint32_t>& selves,
                   const Vector<float>& self_similarities, std::size_t first) const {
        const auto rows = static_cast<std::size_t>(ends.size());
        const auto edges = static_cast<std::size_t>(columns.size());
        check_length(ends, "ends", rows);
        check_length(columns, "columns", edges);
        check_length(similarities, "similarities", edges);
        check_length(selves, "selves", rows);
        check_length(self_similarities, "self_similarities", rows);
        if (first + rows > rows_)
            throw py::value_error("ends: expected " + std::to_string(rows_) + " rows in all, got more");
        const std::uint64_t* end = ends.data();
        if (rows > 0 && (!std::is_sorted(end, end + rows) || end[rows - 1] != edges))
            throw py::value_error("ends: expected rising numbers up to that of the edges");
        const auto outside = [&](std::uint32_t c) { return c != none && c >= ends_.size(); };
        if (std::any_of(columns.data(), columns.data() + edges, outside) ||
            std::any_of(selves.data(), selves.data() + rows, outside))
            throw py::value_error("columns: expected numbers below " + std::to_string(ends_.size()));
        return {end,
                columns.data(),
                similarities.data(),
                selves.data(),
                self_similarities.data(),
                rows,
                static_cast<std::uint32_t>(first)};
    }

    SparseCandidates all() const {
        return {starts_.data(), ends_.data(), entries_.data(), similarities_.data(), ends_.size()};
    }

    Rows checked(Vector<float>& covered, Vector<std::uint32_t>& representative,
                 const Weights& weights) const {
        if (placed_ != rows_)
            throw py::value_error("place: expected " + std::to_string(rows_) + " rows to be placed, got " +
                                  std::to_string(placed_));
        check_length(covered, "covered", rows_);
        return rows_of(covered, representative, weights);
    }

    std::size_t rows_;
    std::uint32_t placed_ = 0;
    bool counted_ = false;  // all blocks, so that entries can be placed
    std::vector<std::uint64_t> starts_, ends_;
    AlignedBuffer<std::uint32_t> entries_;
    AlignedBuffer<float> similarities_;
};

void add_gains_(const Vector<std::uint64_t>& ends, const Vector<std::uint32_t>& columns,
                const Vector<float>& similarities, const Vector<std::uint32_t>& selves,
                const Vector<float>& self_similarities, std::size_t first_row, Vector<float>& covered,
                const Weights& weights, Vector<double>& gains) {
    const auto rows = static_cast<std::size_t>(ends.size()), edges = static_cast<std::size_t>(columns.size());
    const auto count = static_cast<std::size_t>(gains.size()), n = static_cast<std::size_t>(covered.size());
    check_length(similarities, "similarities", edges);
    check_length(selves, "selves", rows);
    check_length(self_similarities, "self_similarities", rows);
    if (weights) check_length(*weights, "weights", n);
    const std::uint64_t* end = ends.data();
    if (first_row + rows > n || (rows > 0 && (!std::is_sorted(end, end + rows) || end[rows - 1] != edges)))
        throw py::value_error("ends: expected rising numbers up to that of the edges, one for each row");
    const auto outside = [&](std::uint32_t c) { return c != none && c >= count; };
    if (std::any_of(columns.data(), columns.data() + edges, outside) ||
        std::any_of(selves.data(), selves.data() + rows, outside))
        throw py::value_error("columns: expected numbers below " + std::to_string(count));
    const Edges part{end,
                     columns.data(),
                     similarities.data(),
                     selves.data(),
                     self_similarities.data(),
                     rows,
                     static_cast<std::uint32_t>(first_row)};
    const Rows state{covered.mutable_data(), nullptr, weights ? weights->data() : nullptr, n};
    double* out = gains.mutable_data();
    const py::gil_scoped_release no_gil;
    add_gains(part, state, out);
}

DenseCandidates dense_of(const py::array& similarities, std::size_t rows) {
    if (!similarities.dtype().equal(py::dtype("float32")))
        throw_dtype(similarities, "similarities", "float32");
    check_matrix(similarities, "similarities");
    if (static_cast<std::size_t>(similarities.shape(1)) != rows)
        throw py::value_error("similarities: expected " + std::to_string(rows) + " columns, got " +
                              std::to_string(similarities.shape(1)));
    if (similarities.shape(0) >= static_cast<py::ssize_t>(none))
        throw py::value_error("similarities: expected fewer than 2^32 - 1 candidates");
    return {static_cast<const float*>(similarities.data()), static_cast<std::size_t>(similarities.shape(0))};
}

py::tuple dense_gains(const py::array& similarities, Vector<float>& covered,
                      Vector<std::uint32_t>& representative, const Weights& weights, const Allowed& allowed,
                      bool negative, std::size_t threads) {
    const Rows rows = rows_of(covered, representative, weights);
    const DenseCandidates all = dense_of(similarities, rows.n);
    const std::uint8_t* mask = allowed_of(allowed, all.count);
    Vector<double> gains(static_cast<py::ssize_t>(all.count));
    double* out = gains.mutable_data();
    std::uint32_t invalid = none;
    run([&] { return gains_of(all, rows, mask, negative, out, invalid, threads, interrupted); });
    return py::make_tuple(gains, invalid == none ? -1 : static_cast<std::int64_t>(invalid));
}

Greedy dense_greedy(const py::array& similarities, Vector<float>& covered,
                    Vector<std::uint32_t>& representative, const Weights& weights, Vector<double>& start,
                    const Names& names, std::size_t k, const Progress& progress) {
    const Rows rows = rows_of(covered, representative, weights);
    return greedy_(dense_of(similarities, rows.n), rows, start, names, k, progress);
}

void dense_cover(const py::array& similarities, const Vector<std::uint32_t>& chosen, const Names& names,
                 Vector<float>& covered, Vector<std::uint32_t>& representative) {
    const Rows rows = rows_of(covered, representative, {});
    cover_(dense_of(similarities, rows.n), chosen, names, rows);
}

double objective_(Vector<float>& covered, Vector<std::uint32_t>& representative, const Weights& weights) {
    return objective(rows_of(covered, representative, weights));
}

}  // namespace

void bind_selection(py::module_& m) {
    py::class_<Columns> columns(m, "Columns");
    columns.def(py::init<std::size_t, std::size_t>(), py::arg("count"), py::arg("rows"))
        .def("count", &Columns::count, py::arg("ends").noconvert(), py::arg("columns").noconvert(),
             py::arg("similarities").noconvert(), py::arg("selves").noconvert(),
             py::arg("self_similarities").noconvert())
        .def("place", &Columns::place, py::arg("ends").noconvert(), py::arg("columns").noconvert(),
             py::arg("similarities").noconvert(), py::arg("selves").noconvert(),
             py::arg("self_similarities").noconvert())
        .def("gains", &Columns::gains, py::arg("covered").noconvert(), py::arg("representative").noconvert(),
             py::arg("weights").noconvert(), py::arg("allowed").noconvert(), py::arg("threads"))
        .def("greedy", &Columns::greedy, py::arg("covered").noconvert(),
             py::arg("representative").noconvert(), py::arg("weights").noconvert(),
             py::arg("start").noconvert(), py::arg("names").noconvert(), py::arg("k"), py::arg("progress"))
        .def("cover", &Columns::cover, py::arg("chosen").noconvert(), py::arg("names").noconvert(),
             py::arg("covered").noconvert(), py::arg("representative").noconvert());
    columns.def("count_better", &Columns::count_better, py::arg("chosen").noconvert(),
                py::arg("covered").noconvert());
    m.def("add_gains", &add_gains_, py::arg("ends").noconvert(), py::arg("columns").noconvert(),
          py::arg("similarities").noconvert(), py::arg("selves").noconvert(),
          py::arg("self_similarities").noconvert(), py::arg("first_row"), py::arg("covered").noconvert(),
          py::arg("weights").noconvert(), py::arg("gains").noconvert());
    m.def("dense_gains", &dense_gains, py::arg("similarities"), py::arg("covered").noconvert(),
          py::arg("representative").noconvert(), py::arg("weights").noconvert(),
          py::arg("allowed").noconvert(), py::arg("negative"), py::arg("threads"));
    m.def("dense_greedy", &dense_greedy, py::arg("similarities"), py::arg("covered").noconvert(),
          py::arg("representative").noconvert(), py::arg("weights").noconvert(), py::arg("start").noconvert(),
          py::arg("names").noconvert(), py::arg("k"), py::arg("progress"));
    m.def("dense_cover", &dense_cover, py::arg("similarities"), py::arg("chosen").noconvert(),
          py::arg("names").noconvert(), py::arg("covered").noconvert(),
          py::arg("representative").noconvert());
    m.def("objective", &objective_, py::arg("covered").noconvert(), py::arg("representative").noconvert(),
          py::arg("weights").noconvert());
}

}  // namespace pycurate::bindings
