#pragma once
// Passes over a sparse graph: sweeps of label propagation over values of many classes a node, dense or as the
// largest few, the passes of conjugate gradients, and what makes a graph's weights a matrix for them.
//
// Rows are compressed: row i has the edges indptr[i] to indptr[i + 1] - 1. Sums over the edges of a row run
// in their order, by fused multiply-adds, class by class; sums over rows are float64 by blocks of block_rows
// rows in order. So every instruction set, number of threads and cut of the rows gives the same bits.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace pycurate::graph {

/// Called by the calling thread about every 100 ms; true stops, and the call returns false.
using Poll = std::function<bool()>;

/// Rows whose sums are one number.
constexpr std::size_t block_rows = 1024;
/// Dense values stand in rows of a multiple of this many, zero beyond the last class.
constexpr std::size_t width_step = 16;
/// A slot of a row of the largest values that holds none; its value is 0.
constexpr std::uint32_t no_label = 0xffffffffu;

/// Consecutive rows. `indptr` has rows + 1 numbers, of which only the differences count; `indices`, uint32 or
/// uint64 as `wide` says, and `values` begin with the first edge of the first row.
template <class T>
struct Edges {
    const std::uint64_t* indptr;
    const void* indices;
    bool wide;
    const T* values;
    std::size_t rows;
    std::size_t first_row;  // number of the first row among all; for sweeps a multiple of block_rows
};

/// What is added to each row of a range at every sweep, as few labels a row; all null where there is nothing.
template <class T>
struct Seeds {
    const std::uint64_t* indptr;  // only differences count, as above
    const std::uint32_t* labels;
    const T* values;
    const std::uint8_t* clamped;  // null, or by row: nonzero where neighbours do not count
};

/// out = omega (alpha W state + seeds - previous) + previous, or what is in brackets, less `previous`, where
/// that is null. changes[b], one for each block of rows: the sum of |alpha W state + seeds - state|.
/// state (all rows, width); previous, out (rows, width), which may be one array.
template <class T>
struct DenseSweep {
    Edges<T> edges;
    Seeds<T> seeds;
    const T* state;
    const T* previous;
    T* out;
    std::size_t width;
    T alpha, omega;
    double* changes;
};
bool sweep_dense(const DenseSweep<float>& sweep, std::size_t threads, const Poll& poll);
bool sweep_dense(const DenseSweep<double>& sweep, std::size_t threads, const Poll& poll);

/// One label of a node and its value.
struct Labelled {
    std::uint32_t label;
    float value;
};

/// The same with omega = 1 for rows that keep their `kept` largest positive values, larger first, ties to the
/// lower label, no_label behind the last. state (all rows, kept), out (rows, kept).
struct TopSweep {
    Edges<float> edges;
    Seeds<float> seeds;
    const Labelled* state;
    Labelled* out;
    std::size_t kept, labels;
    float alpha;
    double* changes;
};
bool sweep_top(const TopSweep& sweep, std::size_t threads, const Poll& poll);

/// Conjugate gradients for (1 - alpha W) x = b, all columns at once. All arrays (rows, width) or (width,).
/// product = direction - alpha W direction, 0 in clamped rows; dots[c] = direction . product.
bool cg_product(const Edges<float>& edges, const std::uint8_t* clamped, const float* direction,
                float* product, std::size_t width, float alpha, double* dots, std::size_t threads,
                const Poll& poll);
/// x += step direction; residual -= step product; squares[c] = residual . residual; changes[b]: sums of
/// |residual| by block of rows.
struct CgStep {
    float* x;
    float* residual;
    const float* direction;
    const float* product;
    const float* step;  // (width,)
    std::size_t rows, width;
    double* squares;
    double* changes;
};
bool cg_step(const CgStep& step, std::size_t threads, const Poll& poll);
/// direction = residual + ratio direction.
bool cg_turn(const float* residual, const float* ratio, float* direction, std::size_t rows, std::size_t width,
             std::size_t threads, const Poll& poll);

/// Whether every row of a whole graph is in place: indptr rising, every index below `rows`. `row`: the first
/// that is not.
bool is_graph(const Edges<float>& edges, std::size_t& row) noexcept;
template <class Index>
struct Graph {
    std::vector<std::uint64_t> indptr;
    std::vector<Index> indices;
    std::vector<float> values;
};
/// Edges of consecutive rows in rising order of their indices, loops left out. `repeated`: the first of these
/// rows that names a neighbour twice, or how many they are.
template <class Index>
bool without_loops(const Edges<float>& edges, Graph<Index>& out, std::size_t& repeated, std::size_t threads,
                   const Poll& poll);
/// A whole W transposed. Rows of the result are in rising order of their indices.
template <class Index>
void transpose(const Edges<float>& edges, Graph<Index>& out);
/// W + its transpose, both with rows in rising order.
template <class Index>
bool add(const Graph<Index>& a, const Graph<Index>& b, Graph<Index>& out, std::size_t threads,
         const Poll& poll);
/// (rows,) float64 sums of each row in the order of its edges.
bool row_sums(const Edges<float>& edges, double* sums, std::size_t threads, const Poll& poll);
/// sums[j] += values of the edges to j, in order of rows: blocks of rows one after another give all.
void add_column_sums(const Edges<float>& edges, double* sums) noexcept;
/// out[e] = values[e] left[row] right[index], in float64, rounded once. left (rows,), right (all rows,).
template <class T>
bool scale(const Edges<float>& edges, const double* left, const double* right, T* out, std::size_t threads,
           const Poll& poll);

}  // namespace pycurate::graph
