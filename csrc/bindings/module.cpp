#include <pybind11/native_enum.h>
#include <pybind11/pybind11.h>

#include <cstdlib>
#include <string>

#include "common/isa.h"
#include "common/thread_pool.h"

namespace py = pybind11;

namespace pycurate::bindings {

void bind_caption(py::module_& m);
void bind_confident(py::module_& m);
void bind_fused_similarity(py::module_& m);
void bind_graph(py::module_& m);
void bind_ngram(py::module_& m);
void bind_hamming(py::module_& m);
void bind_phash(py::module_& m);
void bind_rowwise(py::module_& m);
void bind_selection(py::module_& m);
void bind_threshold(py::module_& m);
void bind_uid(py::module_& m);
void bind_votes(py::module_& m);

/// PYCURATE_ISA picks a weaker instruction set for a whole process (the answers are the same bits); a wrong
/// value fails the import.
void apply_isa_from_environment() {
    const char* wanted = std::getenv("PYCURATE_ISA");
    if (wanted == nullptr) return;
    const std::string name = wanted;
    bool ok = false;
    if (name == "scalar") ok = set_active_isa(Isa::scalar);
    if (name == "avx2") ok = set_active_isa(Isa::avx2);
    if (name == "avx512") ok = set_active_isa(Isa::avx512);
    if (!ok)
        throw py::import_error(
            "PYCURATE_ISA: expected scalar, avx2 or avx512, as far as this CPU has it, got '" + name + "'");
}

}  // namespace pycurate::bindings

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
    using pycurate::Isa;
    pycurate::bindings::apply_isa_from_environment();
    py::native_enum<Isa>(m, "Isa", "enum.IntEnum")
        .value("scalar", Isa::scalar)
        .value("avx2", Isa::avx2)
        .value("avx512", Isa::avx512)
        .finalize();
    m.def("detected_isa", &pycurate::detected_isa);
    m.def("active_isa", &pycurate::active_isa);
    m.def("set_active_isa", &pycurate::set_active_isa, py::arg("isa"));
    m.def("thread_count", &pycurate::thread_count, py::arg("requested"));
    auto caption = m.def_submodule("caption");
    pycurate::bindings::bind_caption(caption);
    auto confident = m.def_submodule("confident");
    pycurate::bindings::bind_confident(confident);
    auto fused_similarity = m.def_submodule("fused_similarity");
    pycurate::bindings::bind_fused_similarity(fused_similarity);
    auto graph = m.def_submodule("graph");
    pycurate::bindings::bind_graph(graph);
    auto ngram = m.def_submodule("ngram");
    pycurate::bindings::bind_ngram(ngram);
    auto hamming = m.def_submodule("hamming");
    pycurate::bindings::bind_hamming(hamming);
    auto phash = m.def_submodule("phash");
    pycurate::bindings::bind_phash(phash);
    auto rowwise = m.def_submodule("rowwise");
    pycurate::bindings::bind_rowwise(rowwise);
    auto selection = m.def_submodule("selection");
    pycurate::bindings::bind_selection(selection);
    auto threshold = m.def_submodule("threshold");
    pycurate::bindings::bind_threshold(threshold);
    auto uid = m.def_submodule("uid");
    pycurate::bindings::bind_uid(uid);
    auto votes = m.def_submodule("votes");
    pycurate::bindings::bind_votes(votes);
}
