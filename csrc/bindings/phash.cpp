#include "kernels/phash/phash.h"

#include <pybind11/numpy.h>

#include <string>
#include <string_view>

#include "bindings/array_checks.h"
#include "kernels/phash/jpeg.h"

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

py::object jpeg_luma(const py::bytes& encoded, std::size_t least_side, std::size_t max_pixels) {
    if (least_side < 1) throw py::value_error("least_side: expected at least 1, got 0");
    const std::string_view file(encoded);
    const auto* data = reinterpret_cast<const std::uint8_t*>(file.data());
    const LumaShape shape = jpeg_luma_shape(data, file.size(), least_side);
    if (shape.scale < 2 || shape.scale * shape.scale * shape.width * shape.height > max_pixels)
        return py::none();
    py::array_t<std::uint8_t> luma({shape.height, shape.width});
    std::uint8_t* out = luma.mutable_data();
    bool whole;
    {
        const py::gil_scoped_release no_gil;
        whole = read_jpeg_luma(data, file.size(), shape.scale, out);
    }
    if (!whole) return py::none();
    return py::make_tuple(luma, shape.is_plain);
}

}  // namespace

void bind_phash(py::module_& m) {
    m.def("jpeg_luma", &jpeg_luma, py::arg("encoded"), py::arg("least_side"), py::arg("max_pixels"));
    m.def("hash", &hash, py::arg("pixels"), py::arg("kind"), py::arg("bits"), py::arg("dihedral"));
}

}  // namespace pycurate::bindings
