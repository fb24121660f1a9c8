#include "kernels/threshold/threshold.h"

#include <cstdint>
#include <string>

#include "bindings/array_checks.h"

namespace pycurate::bindings {
namespace {

constexpr py::ssize_t bins = 65536;

void check_vector(const py::array& array, const char* name, py::ssize_t n) {
    if (array.ndim() < 1 || array.shape(0) != n)
        throw py::value_error(std::string(name) + ": expected " + std::to_string(n) + " rows, got shape " +
                              std::string(py::str(array.attr("shape"))));
    if (!(array.flags() & py::array::c_style) || !(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
        throw py::value_error(std::string(name) + ": expected a contiguous, aligned array; pass a copy");
}

const std::uint8_t* mask_of(const py::object& mask, py::ssize_t n) {
    if (mask.is_none()) return nullptr;
    const auto array = mask.cast<py::array>();
    if (!array.dtype().equal(py::dtype("bool"))) throw_dtype(array, "mask", "bool");
    if (array.ndim() != 1) throw py::value_error("mask: expected a 1-D array (n,)");
    check_vector(array, "mask", n);
    return static_cast<const std::uint8_t*>(array.data());
}

py::array_t<std::int64_t> make_counts() {
    py::array_t<std::int64_t> counts(bins);
    std::fill_n(counts.mutable_data(), bins, 0);
    return counts;
}

py::array_t<std::int64_t> count_digit(const py::array& values, unsigned digit, std::uint64_t prefix,
                                      const py::object& mask) {
    const bool narrow = values.dtype().equal(py::dtype("float32"));
    if (!narrow && !values.dtype().equal(py::dtype("float64")))
        throw_dtype(values, "values", "float32 or float64");
    if (values.ndim() != 1)
        throw py::value_error("values: expected a 1-D array (n,), got " + std::to_string(values.ndim()) +
                              "-D");
    check_vector(values, "values", values.shape(0));
    if (digit >= (narrow ? 2u : 4u))
        throw py::value_error("digit: expected less than " + std::string(narrow ? "2" : "4"));
    const std::uint8_t* chosen = mask_of(mask, values.shape(0));
    const auto n = static_cast<std::size_t>(values.shape(0));
    const void* bits = values.data();
    auto counts = make_counts();
    std::int64_t* out = counts.mutable_data();
    const auto& kernels = threshold::active_kernels();

    py::gil_scoped_release no_gil;
    if (narrow)
        kernels.count_f32(static_cast<const std::uint32_t*>(bits), chosen, n, digit, prefix, out);
    else
        kernels.count_f64(static_cast<const std::uint64_t*>(bits), chosen, n, digit, prefix, out);
    return counts;
}

py::array_t<std::int64_t> count_uid_digit(const py::array& uids, unsigned digit, std::uint64_t prefix_high,
                                          std::uint64_t prefix_low, const py::object& mask) {
    if (!uids.dtype().equal(py::dtype("uint64"))) throw_dtype(uids, "uids", "uint64");
    if (uids.ndim() != 2 || uids.shape(1) != 2) throw py::value_error("uids: expected shape (n, 2)");
    check_vector(uids, "uids", uids.shape(0));
    if (digit >= 8) throw py::value_error("digit: expected less than 8");
    const std::uint8_t* chosen = mask_of(mask, uids.shape(0));
    const auto n = static_cast<std::size_t>(uids.shape(0));
    const auto* keys = static_cast<const uid::Uid*>(uids.data());
    auto counts = make_counts();
    std::int64_t* out = counts.mutable_data();

    py::gil_scoped_release no_gil;
    threshold::count_uid(keys, chosen, n, digit, {prefix_high, prefix_low}, out);
    return counts;
}

}  // namespace

void bind_threshold(py::module_& m) {
    m.def("count_digit", &count_digit, py::arg("values"), py::arg("digit"), py::arg("prefix"),
          py::arg("mask"),
          "(65536,) rows by their 16-bit digit, among those whose earlier digits equal prefix.");
    m.def("count_uid_digit", &count_uid_digit, py::arg("uids"), py::arg("digit"), py::arg("prefix_high"),
          py::arg("prefix_low"), py::arg("mask"), "The same for uids (n, 2) uint64.");
}

}  // namespace pycurate::bindings
