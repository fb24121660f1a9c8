// Graphs and states in the memory of a device.
#include "cuda/graph.h"

#include <cuda_runtime.h>

#include "cuda/block_order.h"

namespace pycurate::cuda {
namespace {

/// From the host, `count` elements or one that nobody reads.
template <class T>
Buffer<T> uploaded(const void* host, std::size_t count) {
    return Buffer<T>::of(static_cast<const T*>(host), count);
}

/// Positions of rows, counted from that of the first.
Buffer<std::uint64_t> from_zero(const std::uint64_t* indptr, std::size_t rows) {
    std::vector<std::uint64_t> moved(indptr, indptr + rows + 1);
    for (std::uint64_t& at : moved) at -= indptr[0];
    return Buffer<std::uint64_t>::of(moved);
}

}  // namespace

Values Values::empty(int device, std::size_t rows, std::size_t row_bytes) {
    const Current current(device);
    return {device, rows, row_bytes, Buffer<char>(rows * row_bytes)};
}

void Values::write(const void* host, std::size_t first, std::size_t count) {
    const Current current(device);
    copy_in(memory.get() + first * row_bytes, host, count * row_bytes);
}

void Values::read(void* host, std::size_t first, std::size_t count) const {
    const Current current(device);
    copy_out(host, memory.get() + first * row_bytes, count * row_bytes);
}

template <class T>
GraphRows::GraphRows(int device, const graph::Edges<T>& edges, const graph::Seeds<T>& seeds)
    : device_(device),
      rows_(edges.rows),
      first_row_(edges.first_row),
      wide_(edges.wide),
      of_doubles_(sizeof(T) == sizeof(double)),
      has_seeds_(seeds.indptr != nullptr),
      has_clamped_(seeds.clamped != nullptr),
      heavy_count_(0) {
    const Current current(device);
    const std::size_t count = edges.indptr[rows_] - edges.indptr[0];
    indptr_ = from_zero(edges.indptr, rows_);
    const std::vector<std::uint32_t> heavy = heavy_rows(edges.indptr, rows_);
    heavy_count_ = static_cast<std::uint32_t>(heavy.size());
    heavy_ = Buffer<std::uint32_t>::of(heavy);
    indices_ = uploaded<char>(edges.indices, count * (wide_ ? sizeof(std::uint64_t) : sizeof(std::uint32_t)));
    values_ = uploaded<char>(edges.values, count * sizeof(T));
    if (has_seeds_) {
        const std::size_t added = seeds.indptr[rows_] - seeds.indptr[0];
        seed_indptr_ = from_zero(seeds.indptr, rows_);
        seed_labels_ = uploaded<std::uint32_t>(seeds.labels, added);
        seed_values_ = uploaded<char>(seeds.values, added * sizeof(T));
    }
    if (has_clamped_) clamped_ = uploaded<std::uint8_t>(seeds.clamped, rows_);
}
template GraphRows::GraphRows(int, const graph::Edges<float>&, const graph::Seeds<float>&);
template GraphRows::GraphRows(int, const graph::Edges<double>&, const graph::Seeds<double>&);

template <class T>
graph::Edges<T> GraphRows::edges() const {
    return {indptr_.get(), indices_.get(), wide_, reinterpret_cast<const T*>(values_.get()),
            rows_,         first_row_};
}
template graph::Edges<float> GraphRows::edges() const;
template graph::Edges<double> GraphRows::edges() const;

template <class T>
graph::Seeds<T> GraphRows::seeds() const {
    return {has_seeds_ ? seed_indptr_.get() : nullptr, seed_labels_.get(),
            reinterpret_cast<const T*>(seed_values_.get()), has_clamped_ ? clamped_.get() : nullptr};
}
template graph::Seeds<float> GraphRows::seeds() const;
template graph::Seeds<double> GraphRows::seeds() const;

double* GraphRows::scratch(std::size_t count) {
    if (scratch_.size() < count) scratch_ = Buffer<double>(count);
    return scratch_.get();
}

float* GraphRows::small(const float* host, std::size_t count) {
    if (small_.size() < count) small_ = Buffer<float>(count);
    copy_in(small_.get(), host, count * sizeof(float));
    return small_.get();
}

}  // namespace pycurate::cuda
