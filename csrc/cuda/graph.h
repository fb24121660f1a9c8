#pragma once
// The GPU twins of the sweeps of kernels/graph: the same bits. Rows of the graph, what is added to them and
// states lie in the memory of a device over all sweeps; sums come back to the host.
#include "cuda/device.h"
#include "kernels/graph/graph.h"

namespace pycurate::cuda {

/// Rows of values in the memory of a device, row after row.
struct Values {
    int device;
    std::size_t rows, row_bytes;
    Buffer<char> memory;

    static Values empty(int device, std::size_t rows, std::size_t row_bytes);
    void write(const void* host, std::size_t first, std::size_t count);
    void read(void* host, std::size_t first, std::size_t count) const;
    template <class T>
    T* as() const noexcept {
        return reinterpret_cast<T*>(memory.get());
    }
};

/// Rows of a matrix, what is added to them, and room for their sums.
class GraphRows {
  public:
    /// Of arrays in host memory; see graph::Edges and graph::Seeds.
    template <class T>
    GraphRows(int device, const graph::Edges<T>& edges, const graph::Seeds<T>& seeds);

    int device() const noexcept { return device_; }
    std::size_t rows() const noexcept { return rows_; }
    std::size_t first_row() const noexcept { return first_row_; }
    std::size_t blocks() const noexcept { return (rows_ + graph::block_rows - 1) / graph::block_rows; }
    bool of_doubles() const noexcept { return of_doubles_; }

    /// Arrays of whole states lie on the device, of which the sweep makes the rows of the range; `edges` and
    /// `seeds` are those of this. `changes` (blocks,) is in host memory.
    template <class T>
    void sweep_dense(graph::DenseSweep<T> sweep);
    void sweep_top(graph::TopSweep sweep);
    /// See graph::cg_product and graph::cg_step, of whole matrices; dots, step, squares and changes are in
    /// host memory.
    void cg_product(const float* direction, float* product, std::size_t width, float alpha, double* dots);
    void cg_step(graph::CgStep step);
    void cg_turn(const float* residual, const float* ratio, float* direction, std::size_t width);

  private:
    template <class T>
    graph::Edges<T> edges() const;
    template <class T>
    graph::Seeds<T> seeds() const;
    double* scratch(std::size_t count);
    float* small(const float* host, std::size_t count);
    void merge_columns(const double* sums, std::size_t width, double* host);
    template <class T>
    const T* sum_heavy(const T* state, std::size_t width);

    int device_;
    std::size_t rows_, first_row_;
    bool wide_, of_doubles_, has_seeds_, has_clamped_;
    std::uint32_t heavy_count_;
    Buffer<std::uint32_t> heavy_;  // numbers of rows, see heavy_rows
    Buffer<char> heavy_sums_;
    Buffer<std::uint64_t> indptr_, seed_indptr_;
    Buffer<char> indices_, values_, seed_values_;
    Buffer<std::uint32_t> seed_labels_;
    Buffer<std::uint8_t> clamped_;
    Buffer<double> scratch_;
    Buffer<float> small_;
};

}  // namespace pycurate::cuda
