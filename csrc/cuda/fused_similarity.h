#pragma once
// The GPU twin of kernels/fused_similarity: the same questions, the same answers, bit for bit (log_sum_exp:
// within 1e-6). No CUDA header is needed to include this.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "cuda/device.h"
#include "kernels/fused_similarity/fused_similarity.h"

namespace pycurate::cuda {

using fused_similarity::Pair, fused_similarity::Poll, fused_similarity::Precision, fused_similarity::Work;
using rowwise::Element, rowwise::Metric;

/// Rows in the memory of a device: copied there, or lent by whoever made them.
class Matrix {
  public:
    /// Copies (n, d) rows of adjacent elements, `row_stride` bytes apart: the first n, or those of these
    /// numbers.
    static Matrix upload(int device, rowwise::Matrix x, const std::int64_t* rows, std::size_t n,
                         std::size_t d, Element element);
    /// Rows that lie on the device already and outlive this.
    static Matrix lend(int device, const void* x, std::ptrdiff_t row_stride, std::size_t n, std::size_t d,
                       Element element);

    int device;
    const void* data;
    std::ptrdiff_t row_stride;
    std::size_t n, d;
    Element element;

    /// (n,) canonical squared norms.
    std::vector<double> squares() const;
    /// Copies some rows to host memory, without gaps.
    void take(const std::int64_t* rows, std::size_t count, void* out) const;
    /// Per row the lowest row with the same bits, -1 for the first.
    void find_copies(std::int64_t* copy_of) const;
    /// (count, p) products of some rows, made unit, with p directions (p, d).
    std::vector<float> project(const std::int64_t* rows, std::size_t count, const float* directions,
                               std::size_t p) const;

  private:
    Matrix() = default;
    Buffer<char> own_;
};

constexpr std::uint32_t most_cluster_coordinates = 32;
/// Per row (n, p) the nearest of (count, p) centroids by dot product; p at most `most_cluster_coordinates`.
std::vector<std::uint32_t> nearest_centroids(int device, const float* rows, std::size_t n, std::size_t p,
                                             const float* centroids, std::size_t count);

/// What the operands of one problem share (see fused_similarity::Screening): a prefix of principal
/// coordinates, in chunks of 64, and centroids in the first of them by which rows are ordered. In host
/// memory.
struct Screening {
    std::vector<float> projection;  // (p, d), p = 64 or 128
    std::vector<float> centroids;   // (c, cluster_coordinates <= 32)
    std::size_t p, d, centroid_count, cluster_coordinates;
    double norm;  // the typical norm of a unit row's first 64 coordinates, in (0, 1]
    double defect;

    Screening(std::vector<float> projection_, std::size_t p_, std::size_t d_, std::vector<float> centroids_,
              std::size_t count, std::size_t coordinates, double norm_);
};

/// Rows of a matrix prepared for tiles: quantised, with their shares of the bound. An *index* is a place in
/// `rows`; a *position* one in the order that tiles have.
struct Operand {
    /// rows: `n` rising row numbers of x, null: all. Each must have a finite squared norm, and for cosine not
    /// 0. `x` must outlive this.
    static std::unique_ptr<Operand> prepare(const Matrix& x, const std::int64_t* rows, std::size_t n,
                                            Metric metric, Precision precision, const Screening* screening);

    const Matrix* x;
    std::size_t n, d;
    Metric metric;
    bool screened;                      // else every pair is scored
    std::size_t pitch;                  // bytes of a quantised row
    std::size_t prefix_chunks;          // of it
    double prefix_unit, prefix_extra;   // see JoinParams
    std::vector<std::int64_t> rows;     // by index
    Buffer<std::uint32_t> row_numbers;  // by position
    Buffer<std::uint32_t> order;        // by position: index
    Buffer<std::int8_t> quantised;      // (positions, pitch)
    Buffer<std::int32_t> shares;        // (stages, positions)
    Buffer<float> factors, biases;      // by position
    Buffer<double> squares;             // by position

    std::size_t positions() const noexcept;
    std::size_t bytes() const noexcept;
};

// As their namesakes in kernels/fused_similarity; `b` null: a with itself. False: stopped by `poll`.

bool pairs_above(const Operand& a, const Operand* b, float threshold, std::size_t max_pairs,
                 std::vector<Pair>& out, bool& too_many, const Poll& poll, Work& work);
bool forest_above(const Operand& a, const Operand* b, float threshold,
                  std::vector<std::pair<std::int64_t, std::int64_t>>& out, const Poll& poll, Work& work);
bool spanning_forest_above(const Operand& a, const Operand* b, float floor, std::vector<Pair>& out,
                           const Poll& poll, Work& work);
bool count_above(const Operand& a, const Operand* b, float threshold, const std::int64_t* weights_a,
                 const std::int64_t* weights_b, std::int64_t* counts_a, std::int64_t* counts_b,
                 const Poll& poll, Work& work);
bool max_earlier(const Operand& a, const Operand* b, const std::uint32_t* ranks_a,
                 const std::uint32_t* ranks_b, float floor, std::int64_t* best_a, float* similarities_a,
                 std::int64_t* best_b, float* similarities_b, const Poll& poll, Work& work);
/// k at most `most_neighbors`.
bool top_k(const Operand& a, const Operand* b, std::size_t k, std::int64_t* rows_a, float* similarities_a,
           std::int64_t* rows_b, float* similarities_b, const Poll& poll, Work& work);
/// Enters the rows of b, or of a itself, into lists of the nearest that began with others: (n of a, k) by
/// index of a, fused_similarity::Ranked by first_b + index of b, falling, 0 behind the last.
bool add_nearest(const Operand& a, const Operand* b, std::size_t k, std::uint32_t first_b,
                 std::uint64_t* lists, const Poll& poll, Work& work);
bool log_sum_exp(const Operand& a, const Operand& b, double scale, double* out_a, double* out_b,
                 const Poll& poll);

constexpr std::size_t most_neighbors = 128;

/// For benchmarks: every tile is screened with whole rows, as if no stage before paid.
void screen_whole_rows(bool always) noexcept;

}  // namespace pycurate::cuda
