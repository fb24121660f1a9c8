#pragma once
// Arrays that the bindings of fused similarity, on the CPU and on GPUs, take and give alike.
#include <cstdint>
#include <string>
#include <vector>

#include "bindings/array_checks.h"
#include "kernels/fused_similarity/fused_similarity.h"

namespace pycurate::bindings {

using Floats = py::array_t<float>;
using Doubles = py::array_t<double>;
using Integers = py::array_t<std::int64_t>;

inline void check_length(const py::array& array, std::size_t n, const char* name) {
    if (array.ndim() != 1 || static_cast<std::size_t>(array.shape(0)) != n ||
        !(array.flags() & py::array::c_style))
        throw py::value_error(std::string(name) + ": expected shape (" + std::to_string(n) +
                              ",), C order, got " + std::string(py::str(array.attr("shape"))));
}

inline py::tuple arrays_of(const std::vector<fused_similarity::Pair>& pairs) {
    const auto count = static_cast<py::ssize_t>(pairs.size());
    Integers rows(count), cols(count);
    Floats similarities(count);
    for (std::size_t i = 0; i < pairs.size(); ++i) {
        rows.mutable_data()[i] = pairs[i].row;
        cols.mutable_data()[i] = pairs[i].col;
        similarities.mutable_data()[i] = pairs[i].similarity;
    }
    return py::make_tuple(rows, cols, similarities);
}

inline std::vector<std::uint32_t> ranks_of(const Integers& ranks, std::size_t n, const char* name) {
    check_length(ranks, n, name);
    std::vector<std::uint32_t> result(n);
    for (std::size_t i = 0; i < n; ++i) {
        const std::int64_t rank = ranks.data()[i];
        if (rank < 0 || rank >= std::int64_t{1} << 32)
            throw py::value_error(std::string(name) + ": expected ranks in [0, 2^32), got " +
                                  std::to_string(rank));
        result[i] = static_cast<std::uint32_t>(rank);
    }
    return result;
}

}  // namespace pycurate::bindings
