#include "common/float_environment.h"
#include "kernels/selection/selection.h"

namespace pycurate::selection {
namespace {

/// entry(column, row, similarity) for every edge and every row with itself.
template <class Entry>
void for_entries(const Edges& edges, const Entry& entry) noexcept {
    std::uint64_t edge = 0;
    for (std::size_t i = 0; i < edges.rows; ++i) {
        const std::uint32_t self = edges.selves[i], row = edges.first_row + static_cast<std::uint32_t>(i);
        for (; edge < edges.ends[i]; ++edge) {
            const std::uint32_t column = edges.columns[edge];
            if (column != none && column != self) entry(column, row, edges.similarities[edge]);
        }
        if (self != none) entry(self, row, edges.self_similarities[i]);
    }
}

}  // namespace

void count_entries(const Edges& edges, std::uint64_t* counts) noexcept {
    for_entries(edges, [&](std::uint32_t column, std::uint32_t, float) { ++counts[column]; });
}

bool place_entries(const Edges& edges, const std::uint64_t* starts, std::uint64_t* ends, std::uint32_t* rows,
                   float* similarities) noexcept {
    bool counted = true;
    for_entries(edges, [&](std::uint32_t column, std::uint32_t row, float similarity) {
        const std::uint64_t at = ends[column];
        if (at > starts[column] && rows[at - 1] == row) {
            if (similarity > similarities[at - 1]) similarities[at - 1] = similarity;
            return;
        }
        if (at == starts[column + 1]) {
            counted = false;
            return;
        }
        rows[at] = row;
        similarities[at] = similarity;
        ++ends[column];
    });
    return counted;
}

void add_gains(const Edges& edges, const Rows& rows, double* gains) noexcept {
    const DefaultFloatEnvironment environment;
    for_entries(edges, [&](std::uint32_t column, std::uint32_t row, float similarity) {
        const float before = rows.covered[row];
        if (similarity <= before) return;
        const double gained = static_cast<double>(similarity) - static_cast<double>(before);
        gains[column] += rows.weights != nullptr ? rows.weights[row] * gained : gained;
    });
}

}  // namespace pycurate::selection
