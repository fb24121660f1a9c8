#include "kernels/ngram/ngram.h"

#include <pybind11/numpy.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "bindings/array_checks.h"
#include "bindings/interrupt.h"

namespace pycurate::bindings {
namespace {

void check_vector(const py::array& array, const char* name, const char* dtype, py::ssize_t n = -1) {
    if (!array.dtype().equal(py::dtype(dtype))) throw_dtype(array, name, dtype);
    if (array.ndim() != 1 || !(array.flags() & py::array::c_style) ||
        !(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
        throw py::value_error(std::string(name) + ": expected a contiguous, aligned 1-D array");
    if (n >= 0 && array.shape(0) != n)
        throw py::value_error(std::string(name) + ": expected " + std::to_string(n) + " elements, got " +
                              std::to_string(array.shape(0)));
}

void require_complete(bool complete) {
    if (!complete) throw py::error_already_set();
}

ngram::Texts texts_of(const py::array& data, const py::array& offsets) {
    check_vector(data, "data", "uint8");
    const bool wide = offsets.dtype().equal(py::dtype("int64"));
    if (!wide && !offsets.dtype().equal(py::dtype("int32")))
        throw_dtype(offsets, "offsets", "int32 or int64");
    check_vector(offsets, "offsets", wide ? "int64" : "int32");
    if (offsets.shape(0) < 1) throw py::value_error("offsets: expected a contiguous 1-D array (n + 1,)");
    const void* at = offsets.data();
    ngram::Texts texts{static_cast<const std::uint8_t*>(data.data()), static_cast<std::size_t>(data.shape(0)),
                       wide ? nullptr : static_cast<const std::int32_t*>(at),
                       wide ? static_cast<const std::int64_t*>(at) : nullptr,
                       static_cast<std::size_t>(offsets.shape(0)) - 1};
    // A negative offset is larger than any size.
    for (std::size_t i = 0; i < texts.n; ++i)
        if (texts.begin(i) > texts.begin(i + 1) || texts.begin(i + 1) > texts.size)
            throw py::value_error("offsets: row " + std::to_string(i) + " points outside data");
    return texts;
}

ngram::Shape shape_of(std::size_t lowest, std::size_t highest, bool words, bool fold) {
    if (lowest < 1 || highest < lowest)
        throw py::value_error("lowest, highest: expected 1 <= lowest <= highest");
    return {lowest, highest, words, fold};
}

ngram::Permutations permutations_of(const py::array& a, const py::array& b) {
    check_vector(a, "a", "uint64");
    check_vector(b, "b", "uint64", a.shape(0));
    return {static_cast<const std::uint64_t*>(a.data()), static_cast<const std::uint64_t*>(b.data()),
            static_cast<std::size_t>(a.shape(0))};
}

ngram::Sets sets_of(const py::array& hashes, const py::array& starts) {
    check_vector(hashes, "hashes", "uint64");
    check_vector(starts, "starts", "int64");
    const auto* at = static_cast<const std::int64_t*>(starts.data());
    if (starts.shape(0) < 1 || at[0] != 0 || at[starts.shape(0) - 1] != hashes.shape(0) ||
        !std::is_sorted(at, at + starts.shape(0)))
        throw py::value_error("starts: expected (n + 1,) rising from 0 to the number of hashes");
    return {static_cast<const std::uint64_t*>(hashes.data()), at,
            static_cast<std::size_t>(starts.shape(0)) - 1};
}

const std::int64_t* rows_of(const py::array& rows, const char* name, std::size_t n) {
    check_vector(rows, name, "int64");
    const auto* at = static_cast<const std::int64_t*>(rows.data());
    for (py::ssize_t i = 0; i < rows.shape(0); ++i)
        if (at[i] < 0 || static_cast<std::size_t>(at[i]) >= n)
            throw py::value_error(std::string(name) + ": expected numbers of sets below " +
                                  std::to_string(n));
    return at;
}

py::array_t<std::uint32_t> make_signatures(std::size_t n, std::size_t permutations) {
    return py::array_t<std::uint32_t>({static_cast<py::ssize_t>(n), static_cast<py::ssize_t>(permutations)});
}

py::tuple sign_texts(const py::array& data, const py::array& offsets, std::size_t lowest, std::size_t highest,
                     bool words, bool fold, const py::array& a, const py::array& b, std::size_t threads) {
    const auto texts = texts_of(data, offsets);
    const auto shape = shape_of(lowest, highest, words, fold);
    const auto permutations = permutations_of(a, b);
    auto signatures = make_signatures(texts.n, permutations.count);
    py::array_t<std::int64_t> counts(static_cast<py::ssize_t>(texts.n));
    std::uint32_t* out = signatures.mutable_data();
    std::int64_t* shingles = counts.mutable_data();
    bool complete;
    {
        py::gil_scoped_release no_gil;
        complete = ngram::sign_texts(texts, shape, permutations, out, shingles, threads, interrupted);
    }
    require_complete(complete);
    return py::make_tuple(std::move(signatures), std::move(counts));
}

py::tuple shingle_sets(const py::array& data, const py::array& offsets, std::size_t lowest,
                       std::size_t highest, bool words, bool fold, std::size_t threads) {
    const auto texts = texts_of(data, offsets);
    const auto shape = shape_of(lowest, highest, words, fold);
    py::array_t<std::int64_t> starts(static_cast<py::ssize_t>(texts.n + 1));
    std::int64_t* at = starts.mutable_data();
    std::vector<std::vector<std::uint64_t>> chunks;
    bool complete;
    {
        py::gil_scoped_release no_gil;
        complete = ngram::shingle_sets(texts, shape, chunks, at, threads, interrupted);
    }
    require_complete(complete);
    py::array_t<std::uint64_t> hashes(at[texts.n]);
    std::uint64_t* out = hashes.mutable_data();
    py::gil_scoped_release no_gil;
    for (auto& chunk : chunks) {
        out = std::copy(chunk.begin(), chunk.end(), out);
        chunk = {};
    }
    py::gil_scoped_acquire gil;
    return py::make_tuple(std::move(hashes), std::move(starts));
}

py::array_t<std::uint32_t> sign_sets(const py::array& hashes, const py::array& starts, const py::array& rows,
                                     const py::array& a, const py::array& b, std::size_t threads) {
    const auto sets = sets_of(hashes, starts);
    const auto* numbers = rows_of(rows, "rows", sets.n);
    const auto g = static_cast<std::size_t>(rows.shape(0));
    const auto permutations = permutations_of(a, b);
    auto signatures = make_signatures(g, permutations.count);
    std::uint32_t* out = signatures.mutable_data();
    bool complete;
    {
        py::gil_scoped_release no_gil;
        complete = ngram::sign_sets(sets, numbers, g, permutations, out, threads, interrupted);
    }
    require_complete(complete);
    return signatures;
}

py::array_t<std::int64_t> find_copies(const py::array& hashes, const py::array& starts, std::size_t threads) {
    const auto sets = sets_of(hashes, starts);
    py::array_t<std::int64_t> copy_of(static_cast<py::ssize_t>(sets.n));
    std::int64_t* out = copy_of.mutable_data();
    bool complete;
    {
        py::gil_scoped_release no_gil;
        complete = ngram::find_copies(sets, out, threads, interrupted);
    }
    require_complete(complete);
    return copy_of;
}

py::array_t<float> jaccard(const py::array& hashes, const py::array& starts, const py::array& rows,
                           const py::array& cols) {
    const auto sets = sets_of(hashes, starts);
    const auto* x = rows_of(rows, "rows", sets.n);
    const auto* y = rows_of(cols, "cols", sets.n);
    check_vector(cols, "cols", "int64", rows.shape(0));
    py::array_t<float> similarities(rows.shape(0));
    float* out = similarities.mutable_data();
    const auto n = static_cast<std::size_t>(rows.shape(0));
    py::gil_scoped_release no_gil;
    for (std::size_t i = 0; i < n; ++i) {
        const auto row = static_cast<std::size_t>(x[i]), col = static_cast<std::size_t>(y[i]);
        out[i] = ngram::jaccard(sets.at(row), sets.size(row), sets.at(col), sets.size(col));
    }
    py::gil_scoped_acquire gil;
    return similarities;
}

ngram::Bands bands_of(const py::array& signatures, std::size_t bands, std::size_t rows) {
    if (!signatures.dtype().equal(py::dtype("uint32"))) throw_dtype(signatures, "signatures", "uint32");
    check_matrix(signatures, "signatures");
    if (bands < 1 || rows < 1 || static_cast<std::size_t>(signatures.shape(1)) != bands * rows)
        throw py::value_error(
            "bands, rows: expected at least 1 each and bands * rows values a signature, got " +
            std::to_string(bands) + " x " + std::to_string(rows) + " for " +
            std::to_string(signatures.shape(1)));
    return {bands, rows};
}

py::array_t<std::uint64_t> band_keys(const py::array& signatures, std::size_t bands, std::size_t rows) {
    const auto shape = bands_of(signatures, bands, rows);
    const auto n = static_cast<std::size_t>(signatures.shape(0));
    const auto* values = static_cast<const std::uint32_t*>(signatures.data());
    py::array_t<std::uint64_t> keys({signatures.shape(0), static_cast<py::ssize_t>(bands)});
    std::uint64_t* out = keys.mutable_data();
    py::gil_scoped_release no_gil;
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t band = 0; band < bands; ++band)
            *out++ = ngram::band_key(values + i * shape.bands * shape.rows, band, shape.rows);
    py::gil_scoped_acquire gil;
    return keys;
}

ngram::Candidates candidates_of(const py::array& hashes, const py::array& starts, const py::array& rows,
                                const py::array& signatures, std::size_t bands, std::size_t band_rows,
                                float threshold) {
    const auto sets = sets_of(hashes, starts);
    const auto* numbers = rows_of(rows, "rows", sets.n);
    const auto shape = bands_of(signatures, bands, band_rows);
    if (signatures.shape(0) != rows.shape(0))
        throw py::value_error("signatures: expected one for each of rows");
    if (rows.shape(0) > INT64_C(0xffffffff)) throw py::value_error("rows: expected fewer than 2^32");
    return {sets,
            numbers,
            static_cast<std::size_t>(rows.shape(0)),
            static_cast<const std::uint32_t*>(signatures.data()),
            shape,
            threshold};
}

py::object pairs_above(const py::array& hashes, const py::array& starts, const py::array& rows,
                       const py::array& signatures, std::size_t bands, std::size_t band_rows, float threshold,
                       std::size_t max_pairs, std::size_t threads) {
    const auto candidates = candidates_of(hashes, starts, rows, signatures, bands, band_rows, threshold);
    std::vector<ngram::Pair> pairs;
    bool complete, too_many = false;
    {
        py::gil_scoped_release no_gil;
        complete = ngram::pairs_above(candidates, max_pairs, pairs, too_many, threads, interrupted);
    }
    require_complete(complete);
    if (too_many) return py::none();
    const auto n = static_cast<py::ssize_t>(pairs.size());
    py::array_t<std::int64_t> found_rows(n), found_cols(n);
    py::array_t<float> similarities(n);
    for (py::ssize_t i = 0; i < n; ++i) {
        const auto& pair = pairs[static_cast<std::size_t>(i)];
        found_rows.mutable_at(i) = pair.row;
        found_cols.mutable_at(i) = pair.col;
        similarities.mutable_at(i) = pair.similarity;
    }
    return py::make_tuple(std::move(found_rows), std::move(found_cols), std::move(similarities));
}

py::array_t<std::int64_t> components_above(const py::array& hashes, const py::array& starts,
                                           const py::array& rows, const py::array& signatures,
                                           std::size_t bands, std::size_t band_rows, float threshold,
                                           std::size_t threads) {
    const auto candidates = candidates_of(hashes, starts, rows, signatures, bands, band_rows, threshold);
    py::array_t<std::int64_t> labels(static_cast<py::ssize_t>(candidates.sets.n));
    std::int64_t* out = labels.mutable_data();
    bool complete;
    {
        py::gil_scoped_release no_gil;
        complete = ngram::components_above(candidates, out, threads, interrupted);
    }
    require_complete(complete);
    return labels;
}

py::tuple greedy(const py::array& hashes, const py::array& starts, const py::array& rows,
                 const py::array& signatures, std::size_t bands, std::size_t band_rows, float threshold,
                 const py::array& order, std::size_t threads) {
    const auto candidates = candidates_of(hashes, starts, rows, signatures, bands, band_rows, threshold);
    const auto* places = rows_of(order, "order", candidates.g);
    check_vector(order, "order", "int64", rows.shape(0));
    py::array_t<std::int64_t> keeper(rows.shape(0));
    py::array_t<float> similarity(rows.shape(0));
    std::int64_t* keepers = keeper.mutable_data();
    float* similarities = similarity.mutable_data();
    bool complete;
    {
        py::gil_scoped_release no_gil;
        complete = ngram::greedy(candidates, places, keepers, similarities, threads, interrupted);
    }
    require_complete(complete);
    return py::make_tuple(std::move(keeper), std::move(similarity));
}

}  // namespace

void bind_ngram(py::module_& m) {
    m.def("sign_texts", &sign_texts, py::arg("data"), py::arg("offsets"), py::arg("lowest"),
          py::arg("highest"), py::arg("words"), py::arg("fold"), py::arg("a"), py::arg("b"),
          py::arg("threads"));
    m.def("shingle_sets", &shingle_sets, py::arg("data"), py::arg("offsets"), py::arg("lowest"),
          py::arg("highest"), py::arg("words"), py::arg("fold"), py::arg("threads"));
    m.def("sign_sets", &sign_sets, py::arg("hashes"), py::arg("starts"), py::arg("rows"), py::arg("a"),
          py::arg("b"), py::arg("threads"));
    m.def("find_copies", &find_copies, py::arg("hashes"), py::arg("starts"), py::arg("threads"));
    m.def("jaccard", &jaccard, py::arg("hashes"), py::arg("starts"), py::arg("rows"), py::arg("cols"));
    m.def("band_keys", &band_keys, py::arg("signatures"), py::arg("bands"), py::arg("rows"));
    m.def("pairs_above", &pairs_above, py::arg("hashes"), py::arg("starts"), py::arg("rows"),
          py::arg("signatures"), py::arg("bands"), py::arg("band_rows"), py::arg("threshold"),
          py::arg("max_pairs"), py::arg("threads"));
    m.def("components_above", &components_above, py::arg("hashes"), py::arg("starts"), py::arg("rows"),
          py::arg("signatures"), py::arg("bands"), py::arg("band_rows"), py::arg("threshold"),
          py::arg("threads"));
    m.def("greedy", &greedy, py::arg("hashes"), py::arg("starts"), py::arg("rows"), py::arg("signatures"),
          py::arg("bands"), py::arg("band_rows"), py::arg("threshold"), py::arg("order"), py::arg("threads"));
}

}  // namespace pycurate::bindings
