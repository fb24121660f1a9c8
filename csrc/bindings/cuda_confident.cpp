// Confident learning on a device, under the names that _core.confident has.
#include "cuda/confident.h"

#include <memory>

#include "bindings/confident_arrays.h"
#include "bindings/dlpack.h"
#include "bindings/interrupt.h"

namespace pycurate::bindings {
namespace {

using cuda::Probabilities;

/// Probabilities and, for as long as they live, the object whose memory it is.
struct PyProbabilities {
    Probabilities of;
    py::object owner;

    Probabilities with(const Labels& labels) const {
        Probabilities result = of;
        result.rows.labels = checked_labels(labels, of.rows.n, of.rows.k);
        return result;
    }
};

/// Rows of the host, which go to the device as they are read.
std::unique_ptr<PyProbabilities> of_host(const py::array& pred_probs, int device) {
    const Checked checked = checked_rows(pred_probs, nullptr);
    return std::make_unique<PyProbabilities>(
        PyProbabilities{{device, false, checked.element, checked.rows}, pred_probs});
}

/// From a DLPack capsule that lives as long as this.
std::unique_ptr<PyProbabilities> lend_probabilities(const py::capsule& capsule, const std::string& name) {
    const DlTensor* x = cuda_matrix(capsule, name);
    if (x->code != dl_floating || x->lanes != 1 || (x->bits != 16 && x->bits != 32 && x->bits != 64))
        throw py::type_error(name +
                             ": expected float16, float32 or float64 on the device; convert it on purpose");
    if (x->shape[1] < 1 || x->shape[1] > INT32_MAX)
        throw py::value_error(name + ": expected shape (n, k) with k from 1 to 2^31 - 1, got k = " +
                              std::to_string(x->shape[1]));
    const Element element = x->bits == 16   ? Element::float16
                            : x->bits == 32 ? Element::float32
                                            : Element::float64;
    const confident::Rows rows{first_byte(*x), static_cast<std::ptrdiff_t>(row_stride(*x) * (x->bits / 8)),
                               static_cast<std::size_t>(x->shape[0]), static_cast<std::size_t>(x->shape[1]),
                               nullptr};
    return std::make_unique<PyProbabilities>(PyProbabilities{{x->device_id, true, element, rows}, capsule});
}

py::tuple summarise(const PyProbabilities& pred_probs, const Labels& labels, const Doubles& bounds) {
    const Probabilities of = pred_probs.with(labels);
    check_length(bounds, "bounds", of.rows.k);
    const auto n = static_cast<py::ssize_t>(of.rows.n);
    Doubles self(n), other(n), sums(n), least(n);
    py::array_t<std::int32_t> predicted(n), guess(n);
    const confident::Summary out{self.mutable_data(),  other.mutable_data(), predicted.mutable_data(),
                                 guess.mutable_data(), sums.mutable_data(),  least.mutable_data()};
    const double* limits = bounds.data();
    run([&] { return cuda::summarise(of, limits, out, interrupted); });
    return py::make_tuple(self, other, predicted, guess, sums, least);
}

Doubles entropies(const PyProbabilities& pred_probs) {
    Doubles out(static_cast<py::ssize_t>(pred_probs.of.rows.n));
    double* place = out.mutable_data();
    run([&] { return cuda::entropies(pred_probs.of, place, interrupted); });
    return out;
}

Doubles self_probabilities(const PyProbabilities& pred_probs, const Labels& labels) {
    const Probabilities of = pred_probs.with(labels);
    Doubles out(static_cast<py::ssize_t>(of.rows.n));
    double* place = out.mutable_data();
    run([&] { return cuda::self_probabilities(of, place, interrupted); });
    return out;
}

/// Of a device, as an array of the host.
py::array host(const PyProbabilities& pred_probs) {
    const auto& rows = pred_probs.of.rows;
    const char* dtype = pred_probs.of.element == Element::float16   ? "float16"
                        : pred_probs.of.element == Element::float32 ? "float32"
                                                                    : "float64";
    py::array out(py::dtype(dtype), {rows.n, rows.k});
    void* place = out.mutable_data();
    {
        const py::gil_scoped_release no_gil;
        cuda::copy_rows(pred_probs.of, place);
    }
    return out;
}

}  // namespace

void bind_cuda_confident(py::module_& m) {
    py::class_<PyProbabilities>(m, "Probabilities")
        .def_static("of_host", &of_host, py::arg("pred_probs"), py::arg("device"))
        .def_static("lend", &lend_probabilities, py::arg("capsule"), py::arg("name"))
        .def("summarise", &summarise, py::arg("labels").noconvert(), py::arg("bounds").noconvert())
        .def("entropies", &entropies)
        .def("self_probabilities", &self_probabilities, py::arg("labels").noconvert())
        .def("host", &host);
}

}  // namespace pycurate::bindings
