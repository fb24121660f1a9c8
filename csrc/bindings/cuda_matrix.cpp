#include "bindings/cuda_matrix.h"

#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings/embeddings.h"
#include "bindings/join_arrays.h"
#include "kernels/rowwise/similarity.h"

namespace pycurate::bindings {
namespace {

using namespace cuda;

[[noreturn]] void throw_shape(const std::string& name, std::size_t dimensions) {
    throw py::value_error(name + ": expected a 2-D array (n, d), got " + std::to_string(dimensions) + "-D");
}
[[noreturn]] void throw_strides(const std::string& name) {
    throw py::value_error(name + ": expected adjacent elements in each row (any stride between rows); pass " +
                          name + ".contiguous()");
}
[[noreturn]] void throw_element(const std::string& name) {
    throw py::type_error(
        name + ": expected float16, bfloat16, float32 or int8 on the device; convert it on purpose");
}

// DLPack's tensor, as its specification lays it out (version 0, unchanged in version 1 below the header).
struct DlTensor {
    void* data;
    std::int32_t device_type, device_id, ndim;
    std::uint8_t code, bits;
    std::uint16_t lanes;
    std::int64_t* shape;
    std::int64_t* strides;  // in elements; null: C order
    std::uint64_t byte_offset;
};
constexpr std::int32_t dl_cuda = 2;

Element element_of_tensor(const DlTensor& x, const std::string& name) {
    enum Code : std::uint8_t { integer = 0, floating = 2, bfloat = 4 };
    if (x.lanes == 1) {
        if (x.code == floating && x.bits == 32) return Element::float32;
        if (x.code == floating && x.bits == 16) return Element::float16;
        if (x.code == bfloat && x.bits == 16) return Element::bfloat16;
        if (x.code == integer && x.bits == 8) return Element::int8;
    }
    throw_element(name);
}

void check_row_numbers(const Integers& rows, std::size_t n) {
    check_length(rows, static_cast<std::size_t>(rows.size()), "rows");
    for (py::ssize_t i = 0; i < rows.size(); ++i)
        if (rows.data()[i] < 0 || static_cast<std::size_t>(rows.data()[i]) >= n)
            throw py::index_error("rows: expected numbers in [0, " + std::to_string(n) + "), got " +
                                  std::to_string(rows.data()[i]));
}

std::unique_ptr<PyMatrix> upload(const py::array& x, const std::string& element, int device,
                                 const std::optional<Integers>& rows) {
    const Element kind = element_of(element);
    const rowwise::Matrix matrix = matrix_of(x, "x", kind);
    const auto all = static_cast<std::size_t>(x.shape(0)), d = static_cast<std::size_t>(x.shape(1));
    if (rows) check_row_numbers(*rows, all);
    const std::size_t n = rows ? static_cast<std::size_t>(rows->size()) : all;
    const std::int64_t* numbers = rows ? rows->data() : nullptr;
    const py::gil_scoped_release no_gil;
    return std::make_unique<PyMatrix>(PyMatrix{Matrix::upload(device, matrix, numbers, n, d, kind), {}});
}

/// Rows of `d` elements, `stride` bytes apart, that lie on a device.
std::unique_ptr<PyMatrix> lent(int device, const void* at, std::int64_t n, std::int64_t d,
                               std::int64_t stride, Element element, const py::object& owner) {
    return std::make_unique<PyMatrix>(PyMatrix{
        Matrix::lend(device, at, stride, static_cast<std::size_t>(n), static_cast<std::size_t>(d), element),
        owner});
}

/// From a DLPack capsule that lives as long as the matrix; its data will be ready on the shared default
/// stream.
std::unique_ptr<PyMatrix> lend(const py::capsule& capsule, const std::string& name) {
    if (std::string(capsule.name()) != "dltensor")
        throw py::type_error(name + ": expected an unused DLPack capsule");
    const auto* x = static_cast<const DlTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
    if (x->device_type != dl_cuda) throw py::value_error(name + ": expected a tensor in CUDA memory");
    if (x->ndim != 2) throw_shape(name, static_cast<std::size_t>(x->ndim));
    const Element kind = element_of_tensor(*x, name);
    const std::int64_t n = x->shape[0], d = x->shape[1];
    if (x->strides != nullptr && d > 1 && n > 0 && x->strides[1] != 1) throw_strides(name);
    wait_for_shared_stream(x->device_id);
    const auto bytes = static_cast<std::int64_t>(rowwise::element_bytes(kind));
    return lent(x->device_id, static_cast<const char*>(x->data) + x->byte_offset, n, d,
                (x->strides != nullptr ? x->strides[0] : d) * bytes, kind, capsule);
}

/// From an object with __cuda_array_interface__ (numba, CuPy), whose memory it stays: waits for the stream
/// that it names.
std::unique_ptr<PyMatrix> lend_array(const py::object& owner, const std::string& name) {
    const py::dict facts = owner.attr("__cuda_array_interface__");
    const auto shape = facts["shape"].cast<std::vector<std::int64_t>>();
    if (shape.size() != 2) throw_shape(name, shape.size());
    const auto type = facts["typestr"].cast<std::string>();
    Element kind{};
    if (type == "<f4")
        kind = Element::float32;
    else if (type == "<f2")
        kind = Element::float16;
    else if (type == "|i1" || type == "<i1")
        kind = Element::int8;
    else
        throw_element(name);
    const auto bytes = static_cast<std::int64_t>(rowwise::element_bytes(kind));
    std::int64_t stride = shape[1] * bytes;
    if (facts.contains("strides") && !facts["strides"].is_none()) {
        const auto strides = facts["strides"].cast<std::vector<std::int64_t>>();
        if (shape[0] > 0 && shape[1] > 1 && strides.at(1) != bytes) throw_strides(name);
        stride = strides.at(0);
    }
    const auto at = facts["data"].cast<py::tuple>()[0].cast<std::uintptr_t>();
    const int device = device_of_pointer(at);
    if (facts.contains("stream") && !facts["stream"].is_none())
        wait_for_stream(device, facts["stream"].cast<std::uintptr_t>());
    return lent(device, reinterpret_cast<const void*>(at), shape[0], shape[1], stride, kind, owner);
}

std::string name_of(Element element) {
    static constexpr const char* names[] = {"float32", "float16", "bfloat16", "int8"};
    return names[static_cast<int>(element)];
}

/// (count, d) rows as they are stored, bfloat16 as uint16.
py::array take(const PyMatrix& x, const Integers& rows) {
    static constexpr const char* stored[] = {"float32", "float16", "uint16", "int8"};
    check_row_numbers(rows, x.rows.n);
    py::array out(py::dtype(stored[static_cast<int>(x.rows.element)]),
                  {rows.shape(0), static_cast<py::ssize_t>(x.rows.d)});
    void* to = out.mutable_data();
    const std::int64_t* numbers = rows.data();
    const auto count = static_cast<std::size_t>(rows.shape(0));
    const py::gil_scoped_release no_gil;
    x.rows.take(numbers, count, to);
    return out;
}

/// (len(rows), p) float32.
Floats project(const PyMatrix& x, const Integers& rows, const Floats& directions) {
    check_row_numbers(rows, x.rows.n);
    if (directions.ndim() != 2 || static_cast<std::size_t>(directions.shape(1)) != x.rows.d ||
        !(directions.flags() & py::array::c_style))
        throw py::value_error("directions: expected shape (p, " + std::to_string(x.rows.d) +
                              "), C order, got " + std::string(py::str(directions.attr("shape"))));
    const std::int64_t* numbers = rows.data();
    const float* of = directions.data();
    const auto count = static_cast<std::size_t>(rows.size()),
               p = static_cast<std::size_t>(directions.shape(0));
    std::vector<float> found;
    {
        const py::gil_scoped_release no_gil;
        found = x.rows.project(numbers, count, of, p);
    }
    return Floats({rows.size(), directions.shape(0)}, found.data());
}

/// (n,) uint32.
py::array_t<std::uint32_t> nearest_centroids_(const Floats& rows, const Floats& centroids, int device) {
    const bool alike = rows.ndim() == 2 && centroids.ndim() == 2 && rows.shape(1) == centroids.shape(1) &&
                       (rows.flags() & centroids.flags() & py::array::c_style);
    if (!alike || rows.shape(1) > most_cluster_coordinates || centroids.shape(0) < 1)
        throw py::value_error("rows, centroids: expected (n, p) and (c, p), p at most 32, C order, got " +
                              std::string(py::str(rows.attr("shape"))) + " and " +
                              std::string(py::str(centroids.attr("shape"))));
    const auto n = static_cast<std::size_t>(rows.shape(0)), p = static_cast<std::size_t>(rows.shape(1)),
               count = static_cast<std::size_t>(centroids.shape(0));
    const float *of_rows = rows.data(), *of_centroids = centroids.data();
    std::vector<std::uint32_t> found;
    {
        const py::gil_scoped_release no_gil;
        found = nearest_centroids(device, of_rows, n, p, of_centroids, count);
    }
    return py::array_t<std::uint32_t>(static_cast<py::ssize_t>(n), found.data());
}

Integers copies(const PyMatrix& x) {
    Integers copy_of(static_cast<py::ssize_t>(x.rows.n));
    std::int64_t* out = copy_of.mutable_data();
    const py::gil_scoped_release no_gil;
    x.rows.find_copies(out);
    return copy_of;
}

Doubles self_products(const PyMatrix& x) {
    std::vector<double> squares;
    {
        const py::gil_scoped_release no_gil;
        squares = x.rows.squares();
    }
    return Doubles(static_cast<py::ssize_t>(squares.size()), squares.data());
}

}  // namespace

void bind_cuda_matrix(py::module_& m) {
    py::class_<PyMatrix>(m, "Matrix")
        .def_static("upload", &upload, py::arg("x").noconvert(), py::arg("element"), py::arg("device"),
                    py::arg("rows").noconvert() = py::none())
        .def_static("lend", &lend, py::arg("capsule"), py::arg("name"))
        .def_static("lend_array", &lend_array, py::arg("owner"), py::arg("name"))
        .def_property_readonly("shape", [](const PyMatrix& x) { return py::make_tuple(x.rows.n, x.rows.d); })
        .def_property_readonly("element", [](const PyMatrix& x) { return name_of(x.rows.element); })
        .def_property_readonly("device", [](const PyMatrix& x) { return x.rows.device; })
        .def("copies", &copies)
        .def("project", &project, py::arg("rows").noconvert(), py::arg("directions").noconvert())
        .def("take", &take, py::arg("rows").noconvert())
        .def("self_products", &self_products);
    m.def("nearest_centroids", &nearest_centroids_, py::arg("rows").noconvert(),
          py::arg("centroids").noconvert(), py::arg("device"));
    m.def("device_of_pointer", &device_of_pointer, py::arg("at"));
}

}  // namespace pycurate::bindings
