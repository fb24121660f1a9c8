#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

/// Confident learning: what the labels of n rows and their class probabilities say about each other.
///
/// Probabilities are (n, k) float16, float32 or float64, the elements of a row adjacent, and are read as
/// float64 exactly; differences and comparisons below are of those float64.
namespace pycurate::confident {

enum class Element { float16, float32, float64 };

struct Rows {
    const void* data;
    std::ptrdiff_t stride;       // bytes from one row to the next
    std::size_t n, k;            // k >= 1
    const std::int64_t* labels;  // (n,) below k; negative where a row has none
};

/// Where what is said of each row goes, (n,) each.
struct Summary {
    double* self;             // p[label]; NaN without a label
    double* other;            // the largest p[j], j != label; -inf where there is none
    std::int32_t* predicted;  // first class of largest p
    std::int32_t* guess;      // -1 where no p[j] >= bounds[j]; j where one is; predicted where several are
    double*
        sums;  // of all p: lane l of 16 takes j = l (mod 16) in rising j, lanes folded +8, +4, +2, +1, in
               // float32 but for float64 rows; NaN or infinite where some p is. The rest then means nothing
    double* least;  // the smallest p
};

/// One entry per kernel; every instruction set fills the same table. Strides in bytes, summaries of n rows.
struct Kernels {
    void (*summarise_f16)(const Rows& rows, const float* bounds, const Summary& out) noexcept;
    void (*summarise_f32)(const Rows& rows, const float* bounds, const Summary& out) noexcept;
    void (*summarise_f64)(const Rows& rows, const double* bounds, const Summary& out) noexcept;
    /// out[i] = -sum of p log p over p >= 2^-1000: lane l of 8 takes j = l (mod 8), folded +4, +2, +1. Labels
    /// are not read.
    void (*entropies_f16)(const Rows& rows, double* out) noexcept;
    void (*entropies_f32)(const Rows& rows, double* out) noexcept;
    void (*entropies_f64)(const Rows& rows, double* out) noexcept;
};

extern const Kernels scalar, avx2;

/// The one dispatch point of this family.
const Kernels& active_kernels() noexcept;

using Poll = std::function<bool()>;

/// The least number that float32 or float16 rows can hold, as float32, and that is not below `bound`. A
/// float16 is a float32, so that the next float32 up lets through the same of them.
float not_below(double bound) noexcept;

/// `bounds` are float64; for narrower rows the kernels compare with the next number up that a row can hold,
/// which lets through the same p. False when `poll` ended it.
bool summarise(Element element, const Rows& rows, const double* bounds, const Summary& out,
               std::size_t threads, const Poll& poll);
bool entropies(Element element, const Rows& rows, double* out, std::size_t threads, const Poll& poll);
/// out[i] = p[label] of row i, NaN without a label.
bool self_probabilities(Element element, const Rows& rows, double* out, std::size_t threads,
                        const Poll& poll);

/// Adds rows, in order, to sums by label: sums[y] + rests[y] is the total, by Neumaier's compensated sum.
/// Strictly sequential and 2 ns a row, so that no cut into blocks can change a bit. Negative labels are
/// passed over.
void add_class_sums(const double* self, const std::int64_t* labels, std::size_t n, double* sums,
                    double* rests, std::int64_t* counts) noexcept;

/// Of the rows of each class, those of largest margin towards some other classes.
///
/// A pair (given class k, class j) wants a number of rows labelled k: those of largest p[j] - p[k], or of
/// smallest p[k] where j = k; of equal ones the lower rows; a margin that is NaN is never wanted. Which they
/// are does not depend on threads or on how rows are cut into calls of `add`. Memory: 32 bytes for each
/// wanted row.
class MarginCandidates {
  public:
    /// The pairs of class k are (k, columns[p]) for p from offsets[k] to offsets[k + 1], and want wanted[p]
    /// >= 1.
    MarginCandidates(std::vector<std::int64_t> offsets, std::vector<std::int32_t> columns,
                     std::vector<std::int64_t> wanted);
    /// Rows first, first + 1, ...; throws std::bad_alloc. False when `poll` ended it.
    bool add(Element element, const Rows& rows, std::int64_t first, std::size_t threads, const Poll& poll);
    /// The rows wanted by any pair, pair by pair.
    std::vector<std::int64_t> rows() const;

  private:
    struct Candidate {
        double margin;
        std::int64_t row;
        bool operator<(const Candidate& b) const noexcept {
            return margin != b.margin ? margin > b.margin : row < b.row;
        }
    };
    struct Pair {
        std::vector<Candidate> best;
        Candidate last{};  // once `full`: the last of the wanted at the time
        bool full = false;
    };
    template <class Probability>
    void add_class(const Rows& rows, std::int64_t first, const std::uint32_t* begin,
                   const std::uint32_t* end);
    std::vector<std::uint32_t> by_class(const Rows& rows) const;
    static void shrink(std::vector<Candidate>& best, std::size_t wanted);

    std::vector<std::int64_t> offsets_;
    std::vector<std::int32_t> columns_;
    std::vector<std::int64_t> wanted_;
    std::vector<Pair> pairs_;
};

}  // namespace pycurate::confident
