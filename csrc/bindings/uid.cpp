#include "kernels/uid/uid.h"

#include <pybind11/native_enum.h>

#include <cstdint>
#include <string>

#include "bindings/array_checks.h"

namespace pycurate::bindings {
namespace {

using uid::Uid;

/// A (n, 2) uint64 array as uids: the view that pycurate.kernels.uid makes of a "u8,u8" array.
std::size_t check_uids(const py::array& array, const char* name) {
    if (!array.dtype().equal(py::dtype("uint64"))) throw_dtype(array, name, "uint64");
    check_matrix(array, name);
    if (array.shape(1) != 2) throw py::value_error(std::string(name) + ": expected shape (n, 2)");
    if (!(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
        throw py::value_error(std::string(name) + ": expected an aligned array; pass a copy");
    return static_cast<std::size_t>(array.shape(0));
}

const Uid* uids_of(const py::array& array) { return static_cast<const Uid*>(array.data()); }
Uid* mutable_uids_of(py::array& array) { return static_cast<Uid*>(array.mutable_data()); }

void check_length(const py::array& array, const char* name, std::size_t expected) {
    if (array.ndim() != 1 || static_cast<std::size_t>(array.shape(0)) != expected)
        throw py::value_error(std::string(name) + ": expected shape (" + std::to_string(expected) +
                              ",), got " + std::string(py::str(array.attr("shape"))));
    if (!(array.flags() & py::array::c_style))
        throw py::value_error(std::string(name) + ": expected C order; pass numpy.ascontiguousarray(" + name +
                              ")");
}

py::array_t<std::uint64_t> make_uids(std::size_t n) {
    return py::array_t<std::uint64_t>({static_cast<py::ssize_t>(n), py::ssize_t{2}});
}

/// Rows of text to read between two looks at the signals.
constexpr std::size_t parse_rows = std::size_t{1} << 24;

py::tuple parse(const char* text, std::size_t n) {
    auto out = make_uids(n);
    Uid* uids = mutable_uids_of(out);
    const auto& kernels = uid::active_kernels();
    std::size_t done = 0;
    while (done < n) {
        const std::size_t rows = std::min(parse_rows, n - done);
        std::size_t good;
        {
            py::gil_scoped_release no_gil;
            good = kernels.parse_hex(text + 32 * done, rows, uids + done);
        }
        done += good;
        if (good < rows) break;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    }
    return py::make_tuple(std::move(out), done);
}

py::tuple parse_hex(const py::array& text) {
    if (!text.dtype().equal(py::dtype("uint8"))) throw_dtype(text, "text", "uint8");
    check_matrix(text, "text");
    if (text.shape(1) != 32) throw py::value_error("text: expected shape (n, 32)");
    return parse(static_cast<const char*>(text.data()), static_cast<std::size_t>(text.shape(0)));
}

template <class Offset>
py::tuple parse_offsets(const py::array& data, const py::array& offsets) {
    const auto* p = static_cast<const Offset*>(offsets.data());
    const auto n = static_cast<std::size_t>(offsets.shape(0)) - 1;
    std::size_t good;
    {
        py::gil_scoped_release no_gil;
        good = uid::first_not_32(p, n);
    }
    if (p[0] < 0 || static_cast<std::size_t>(p[0]) + 32 * good > static_cast<std::size_t>(data.shape(0)))
        throw py::value_error("offsets: point outside data");
    py::tuple parsed = parse(static_cast<const char*>(data.data()) + p[0], good);
    return py::make_tuple(parsed[0], parsed[1]);
}

py::tuple parse_hex_offsets(const py::array& data, const py::array& offsets) {
    if (!data.dtype().equal(py::dtype("uint8"))) throw_dtype(data, "data", "uint8");
    if (data.ndim() != 1 || !(data.flags() & py::array::c_style))
        throw py::value_error("data: expected a contiguous 1-D array");
    if (offsets.ndim() != 1 || offsets.shape(0) < 1 || !(offsets.flags() & py::array::c_style))
        throw py::value_error("offsets: expected a contiguous 1-D array (n + 1,), got shape " +
                              std::string(py::str(offsets.attr("shape"))));
    if (!(offsets.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
        throw py::value_error("offsets: expected an aligned array; pass a copy");
    if (offsets.dtype().equal(py::dtype("int32"))) return parse_offsets<std::int32_t>(data, offsets);
    if (offsets.dtype().equal(py::dtype("int64"))) return parse_offsets<std::int64_t>(data, offsets);
    throw_dtype(offsets, "offsets", "int32 or int64");
}

py::array_t<std::uint8_t> format_hex(const py::array& uids) {
    const std::size_t n = check_uids(uids, "uids");
    py::array_t<std::uint8_t> text({static_cast<py::ssize_t>(n), py::ssize_t{32}});
    const Uid* in = uids_of(uids);
    char* out = reinterpret_cast<char*>(text.mutable_data());
    const auto& kernels = uid::active_kernels();
    py::gil_scoped_release no_gil;
    kernels.format_hex(in, n, out);
    return text;
}

/// True when Ctrl-C, or another signal whose handler raises, arrived; called without the GIL.
bool interrupted() {
    py::gil_scoped_acquire gil;
    return PyErr_CheckSignals() != 0;
}

void sort(py::array& keys, const py::object& payload, std::size_t threads) {
    const std::size_t n = check_uids(keys, "keys");
    Uid* k = mutable_uids_of(keys);
    bool finished;
    if (payload.is_none()) {
        py::gil_scoped_release no_gil;
        finished = uid::sort(k, n, threads, interrupted);
    } else {
        auto values = payload.cast<py::array>();
        check_length(values, "payload", n);
        const bool narrow = values.dtype().equal(py::dtype("uint32"));
        if (!narrow && !values.dtype().equal(py::dtype("uint64")))
            throw_dtype(values, "payload", "uint32 or uint64");
        void* p = values.mutable_data();
        py::gil_scoped_release no_gil;
        finished = narrow ? uid::sort(k, static_cast<std::uint32_t*>(p), n, threads, interrupted)
                          : uid::sort(k, static_cast<std::uint64_t*>(p), n, threads, interrupted);
    }
    if (!finished) throw py::error_already_set();
}

std::size_t first_unsorted(const py::array& uids, bool strict) {
    const std::size_t n = check_uids(uids, "uids");
    const Uid* p = uids_of(uids);
    py::gil_scoped_release no_gil;
    return uid::first_unsorted(p, n, strict);
}

py::tuple merge(uid::Algebra op, const py::array& a, const py::array& b, std::size_t a_done,
                std::size_t b_done, py::array& out, std::size_t steps) {
    const std::size_t na = check_uids(a, "a"), nb = check_uids(b, "b"), capacity = check_uids(out, "out");
    if (a_done > na || b_done > nb)
        throw py::value_error("a_done, b_done: expected at most the rows of a and b");
    const Uid *pa = uids_of(a), *pb = uids_of(b);
    Uid* po = mutable_uids_of(out);
    uid::Progress progress;
    {
        py::gil_scoped_release no_gil;
        progress = uid::merge(op, pa, na, pb, nb, {a_done, b_done, 0}, po, capacity, steps);
    }
    return py::make_tuple(progress.a, progress.b, progress.out);
}

py::array_t<std::int64_t> find(const py::array& sorted, const py::array& queries) {
    const std::size_t n = check_uids(sorted, "sorted"), m = check_uids(queries, "queries");
    py::array_t<std::int64_t> positions(static_cast<py::ssize_t>(m));
    const Uid *ps = uids_of(sorted), *pq = uids_of(queries);
    std::int64_t* out = positions.mutable_data();
    py::gil_scoped_release no_gil;
    uid::find(ps, n, pq, m, out);
    return positions;
}

std::size_t count_distinct(const py::array& sorted) {
    const std::size_t n = check_uids(sorted, "sorted");
    const Uid* p = uids_of(sorted);
    py::gil_scoped_release no_gil;
    return uid::count_distinct(p, n);
}

py::tuple run_lengths(const py::array& sorted) {
    const std::size_t n = check_uids(sorted, "sorted");
    const Uid* p = uids_of(sorted);
    const std::size_t distinct = count_distinct(sorted);
    auto keys = make_uids(distinct);
    py::array_t<std::int64_t> counts(static_cast<py::ssize_t>(distinct));
    Uid* pk = mutable_uids_of(keys);
    std::int64_t* pc = counts.mutable_data();
    {
        py::gil_scoped_release no_gil;
        uid::run_lengths(p, n, pk, pc);
    }
    return py::make_tuple(std::move(keys), std::move(counts));
}

}  // namespace

void bind_uid(py::module_& m) {
    using uid::Algebra;
    py::native_enum<Algebra>(m, "Algebra", "enum.Enum")
        .value("intersect", Algebra::intersect)
        .value("unite", Algebra::unite)
        .value("minus", Algebra::minus)
        .value("without", Algebra::without)
        .value("add", Algebra::add)
        .finalize();
    m.def("parse_hex", &parse_hex, py::arg("text"),
          "(n, 32) uint8 -> uids, rows that are good before the first bad one.");
    m.def("parse_hex_offsets", &parse_hex_offsets, py::arg("data"), py::arg("offsets"),
          "The same for the buffers of an Arrow string array.");
    m.def("format_hex", &format_hex, py::arg("uids"), "(n, 2) uint64 -> (n, 32) uint8.");
    m.def("sort", &sort, py::arg("keys"), py::arg("payload"), py::arg("threads"), "In place, stable.");
    m.def("first_unsorted", &first_unsorted, py::arg("uids"), py::arg("strict"),
          "First row out of order, or n.");
    m.def("merge", &merge, py::arg("op"), py::arg("a"), py::arg("b"), py::arg("a_done"), py::arg("b_done"),
          py::arg("out"), py::arg("steps"), "Rows of a and b that are done, and rows written to out.");
    m.def("find", &find, py::arg("sorted"), py::arg("queries"), "First place of each sorted query, or -1.");
    m.def("count_distinct", &count_distinct, py::arg("sorted"));
    m.def("run_lengths", &run_lengths, py::arg("sorted"), "Each key once, and its count.");
}

}  // namespace pycurate::bindings
