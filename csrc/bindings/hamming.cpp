#include "kernels/hamming/hamming.h"

#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <tuple>

#include "bindings/array_checks.h"
#include "bindings/interrupt.h"

namespace pycurate::bindings {
namespace {

using namespace hamming;
using Integers = py::array_t<std::int64_t>;
using Distances = py::array_t<std::int32_t>;

struct Checked {
    Codes codes;
    std::size_t words;
};

Checked codes_of(const py::array& array, const char* name) {
    if (!array.dtype().equal(py::dtype("uint64"))) throw_dtype(array, name, "uint64");
    check_matrix(array, name);
    if (!(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
        throw py::value_error(std::string(name) + ": expected an aligned array; pass a copy");
    const auto n = static_cast<std::size_t>(array.shape(0)), words = static_cast<std::size_t>(array.shape(1));
    if (n >= std::size_t{1} << 31)
        throw py::value_error(std::string(name) + ": expected fewer than 2^31 codes, got " +
                              std::to_string(n));
    if (words == 0 || words > 1024)
        throw py::value_error(std::string(name) + ": expected codes of 64 to 65,536 bits, got " +
                              std::to_string(64 * words));
    return {{static_cast<const std::uint64_t*>(array.data()), n}, words};
}

std::optional<Checked> other_of(const std::optional<py::array>& b, const Checked& left) {
    if (!b) return std::nullopt;
    const Checked right = codes_of(*b, "b");
    if (right.words != left.words)
        throw py::value_error("b: expected codes of " + std::to_string(64 * left.words) + " bits, got " +
                              std::to_string(64 * right.words));
    return right;
}

std::vector<Band> bands_for(const Checked& a, const Checked* b, unsigned radius, int bands) {
    if (radius > 64 * a.words)
        throw py::value_error("radius: expected at most " + std::to_string(64 * a.words) + ", got " +
                              std::to_string(radius));
    return plan_bands(a.codes.n, (b != nullptr ? b : &a)->codes.n, b == nullptr, a.words, radius, bands);
}

std::optional<std::tuple<Integers, Integers, Distances>> pairs_within_(
    const py::array& a, const std::optional<py::array>& b, unsigned radius, int bands, std::size_t max_pairs,
    std::size_t threads, const Progress& progress) {
    const Checked left = codes_of(a, "a");
    const auto right = other_of(b, left);
    const auto plan = bands_for(left, right ? &*right : nullptr, radius, bands);
    std::vector<Pair> pairs;
    bool too_many = false;
    run([&] {
        return pairs_within(left.codes, right ? &right->codes : nullptr, left.words, radius, plan, max_pairs,
                            pairs, too_many, threads, poll_of(progress));
    });
    if (too_many) return std::nullopt;
    const auto count = static_cast<py::ssize_t>(pairs.size());
    Integers rows(count), cols(count);
    Distances distances(count);
    for (std::size_t i = 0; i < pairs.size(); ++i) {
        rows.mutable_data()[i] = pairs[i].row;
        cols.mutable_data()[i] = pairs[i].col;
        distances.mutable_data()[i] = static_cast<std::int32_t>(pairs[i].distance);
    }
    return std::tuple{rows, cols, distances};
}

Integers components_within_(const py::array& a, unsigned radius, int bands, std::size_t threads,
                            const Progress& progress) {
    const Checked codes = codes_of(a, "a");
    const auto plan = bands_for(codes, nullptr, radius, bands);
    Integers labels(static_cast<py::ssize_t>(codes.codes.n));
    std::int64_t* out = labels.mutable_data();
    run([&] {
        return components_within(codes.codes, codes.words, radius, plan, out, threads, poll_of(progress));
    });
    return labels;
}

py::tuple linkage_within_(const py::array& a, const std::optional<py::array>& b, unsigned radius, int bands,
                          std::size_t threads, const Progress& progress) {
    const Checked left = codes_of(a, "a");
    const auto right = other_of(b, left);
    bands_for(left, nullptr, radius, -1);
    const auto rows = static_cast<py::ssize_t>(left.codes.n + (right ? right->codes.n : 0));
    Integers joined(rows);
    Distances distances(rows);
    std::int64_t* joined_out = joined.mutable_data();
    std::int32_t* distances_out = distances.mutable_data();
    run([&] {
        return linkage_within(left.codes, right ? &right->codes : nullptr, left.words, radius, bands,
                              joined_out, distances_out, threads, poll_of(progress));
    });
    return py::make_tuple(joined, distances);
}

using Ranks = py::array_t<std::uint32_t, py::array::c_style>;

const std::uint32_t* ranks_of(const Ranks& ranks, const Checked& codes, const char* name) {
    if (ranks.ndim() != 1 || static_cast<std::size_t>(ranks.shape(0)) != codes.codes.n)
        throw py::value_error(std::string(name) + ": expected shape (" + std::to_string(codes.codes.n) +
                              ",), got " + std::string(py::str(ranks.attr("shape"))));
    return ranks.data();
}

py::tuple nearest_earlier_(const py::array& a, const Ranks& ranks, const std::optional<py::array>& b,
                           const std::optional<Ranks>& b_ranks, unsigned radius, int bands,
                           std::size_t threads, const Progress& progress) {
    const Checked left = codes_of(a, "a");
    const auto right = other_of(b, left);
    if (b_ranks.has_value() != right.has_value())
        throw py::value_error("b_ranks: expected with b, and only with it");
    const std::uint32_t* of_a = ranks_of(ranks, left, "ranks");
    const std::uint32_t* of_b = right ? ranks_of(*b_ranks, *right, "b_ranks") : nullptr;
    const auto plan = bands_for(left, right ? &*right : nullptr, radius, bands);
    Integers best(static_cast<py::ssize_t>(left.codes.n));
    Distances distances(static_cast<py::ssize_t>(left.codes.n));
    std::int64_t* best_out = best.mutable_data();
    std::int32_t* distances_out = distances.mutable_data();
    run([&] {
        return nearest_earlier(left.codes, right ? &right->codes : nullptr, left.words, radius, plan, of_a,
                               of_b, best_out, distances_out, threads, poll_of(progress));
    });
    return py::make_tuple(best, distances);
}

Integers copies_(const py::array& a, std::size_t threads) {
    const Checked codes = codes_of(a, "a");
    Integers copy_of(static_cast<py::ssize_t>(codes.codes.n));
    std::int64_t* out = copy_of.mutable_data();
    const Progress none;
    run([&] { return find_copies(codes.codes, codes.words, out, threads, poll_of(none)); });
    return copy_of;
}

std::vector<std::tuple<unsigned, unsigned, unsigned>> plan(std::size_t n, std::size_t m, bool self,
                                                           std::size_t words, unsigned radius) {
    std::vector<std::tuple<unsigned, unsigned, unsigned>> result;
    for (const Band& band : plan_bands(n, m, self, words, radius, 0))
        result.emplace_back(band.first, band.bits, band.radius);
    return result;
}

}  // namespace

void bind_hamming(py::module_& m) {
    m.def("pairs_within", &pairs_within_, py::arg("a"), py::arg("b"), py::arg("radius"), py::arg("bands"),
          py::arg("max_pairs"), py::arg("threads"), py::arg("progress"));
    m.def("components_within", &components_within_, py::arg("a"), py::arg("radius"), py::arg("bands"),
          py::arg("threads"), py::arg("progress"));
    m.def("linkage_within", &linkage_within_, py::arg("a"), py::arg("b"), py::arg("radius"), py::arg("bands"),
          py::arg("threads"), py::arg("progress"));
    m.def("nearest_earlier", &nearest_earlier_, py::arg("a"), py::arg("ranks").noconvert(), py::arg("b"),
          py::arg("b_ranks").noconvert(), py::arg("radius"), py::arg("bands"), py::arg("threads"),
          py::arg("progress"));
    m.def("copies", &copies_, py::arg("a"), py::arg("threads"));
    m.def("plan", &plan, py::arg("n"), py::arg("m"), py::arg("self_join"), py::arg("words"),
          py::arg("radius"));
}

}  // namespace pycurate::bindings
