#include "kernels/phash/phash.h"

#include <pybind11/numpy.h>

#include <string>

#include "bindings/array_checks.h"

namespace pycurate::bindings {
namespace {

using namespace phash;

constexpr py::ssize_t most_pixels = 1 << 20;  // on a side

Picture picture_of(const py::array& pixels) {
    if (!pixels.dtype().equal(py::dtype("uint8"))) throw_dtype(pixels, "pixels", "uint8");
    const auto channels = pixels.ndim() == 3 ? pixels.shape(2) : 1;
    if (pixels.ndim() < 2 || pixels.ndim() > 3 || (channels != 1 && channels != 3 && channels != 4))
        throw py::value_error(
            "pixels: expected shape (height, width), (height, width, 3) or (height, width, 4), got " +
            std::string(py::str(pixels.attr("shape"))));
    const auto height = pixels.shape(0), width = pixels.shape(1);
    if (height < 1 || width < 1 || height > most_pixels || width > most_pixels)
        throw py::value_error("pixels: expected sides of 1 to " + std::to_string(most_pixels) +
                              " pixels, got " + std::string(py::str(pixels.attr("shape"))));
    if ((width > 1 && pixels.strides(1) != channels) || (channels > 1 && pixels.strides(2) != 1))
        throw py::value_error(
            "pixels: expected adjacent pixels in each row (any stride between rows); pass "
            "numpy.ascontiguousarray(pixels)");
    return {static_cast<const std::uint8_t*>(pixels.data()), static_cast<std::size_t>(width),
            static_cast<std::size_t>(height), static_cast<std::size_t>(channels), pixels.strides(0)};
}

py::tuple hash(const py::array& pixels, const std::string& kind, std::size_t bits, bool dihedral) {
    if (kind != "phash" && kind != "dhash")
        throw py::value_error("kind: expected 'phash' or 'dhash', got '" + kind + "'");
    if (bits != 64 && bits != 256)
        throw py::value_error("bits: expected 64 or 256, got " + std::to_string(bits));
    const Picture picture = picture_of(pixels);
    py::array_t<std::uint64_t> words(static_cast<py::ssize_t>(bits / 64));
    std::uint64_t* out = words.mutable_data();
    bool structured;
    {
        const py::gil_scoped_release no_gil;
        structured = hash_picture(picture, kind == "phash" ? Kind::dct : Kind::difference,
                                  bits == 64 ? 8 : 16, dihedral, out);
    }
    return py::make_tuple(words, structured);
}

}  // namespace

void bind_phash(py::module_& m) {
    m.def("hash", &hash, py::arg("pixels"), py::arg("kind"), py::arg("bits"), py::arg("dihedral"));
}

}  // namespace pycurate::bindings
