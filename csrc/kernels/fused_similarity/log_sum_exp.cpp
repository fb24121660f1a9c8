// Sums of exponentials over rows and over columns. Canonical similarities, float64 sums of fixed blocks of
// 4,096 rows merged in order, so that threads and tiles change nothing.
#include "kernels/fused_similarity/join.h"

namespace pycurate::fused_similarity {
namespace {

constexpr std::size_t block_rows = 4096;

/// Sum of exp(term) as exp(peak) * sum.
struct ExpSum {
    double peak = -rowwise::infinity, sum = 0;
    void add(double term) noexcept {
        if (!(term == term)) return;
        if (term <= peak) {
            sum += std::exp(term - peak);
        } else {
            sum = sum * std::exp(peak - term) + 1.0;
            peak = term;
        }
    }
    void add(const ExpSum& other) noexcept {
        if (other.sum == 0) return;
        if (other.peak <= peak) {
            sum += other.sum * std::exp(other.peak - peak);
        } else {
            sum = sum * std::exp(peak - other.peak) + other.sum;
            peak = other.peak;
        }
    }
    double log() const noexcept { return peak + std::log(sum); }
};

}  // namespace

bool log_sum_exp(const Operand& a, const Operand& b, double scale, double* out_a, double* out_b,
                 std::size_t threads, const Poll& poll, Work& work) {
    static_cast<void>(work);
    std::vector<ExpSum> rows(a.n), cols(b.n);
    const std::size_t blocks_a = (a.n + block_rows - 1) / block_rows,
                      blocks_b = (b.n + block_rows - 1) / block_rows;
    std::vector<std::vector<ExpSum>> partial(blocks_a);
    for (std::size_t block = 0; block < blocks_b; ++block) {
        const std::size_t j0 = block * block_rows, j1 = std::min(b.n, j0 + block_rows);
        const bool complete = parallel_for(
            blocks_a, threads,
            [&](std::size_t t) {
                const DefaultFloatEnvironment environment;
                partial[t].assign(j1 - j0, {});
                for (std::size_t i = t * block_rows; i < std::min(a.n, (t + 1) * block_rows); ++i) {
                    ExpSum row;
                    for (std::size_t j = j0; j < j1; ++j) {
                        const auto other = static_cast<std::uint32_t>(j);
                        float score;
                        a.scores(i, b, &other, 1, &score);
                        const double term = scale * static_cast<double>(score);
                        row.add(term);
                        partial[t][j - j0].add(term);
                    }
                    rows[i].add(row);
                }
            },
            [&] { return poll && poll(static_cast<double>(block) / static_cast<double>(blocks_b)); });
        if (!complete) return false;
        for (const auto& sums : partial)
            for (std::size_t j = j0; j < j1; ++j) cols[j].add(sums[j - j0]);
    }
    for (std::size_t i = 0; i < a.n; ++i) out_a[a.order[i]] = rows[i].log();
    for (std::size_t j = 0; j < b.n; ++j) out_b[b.order[j]] = cols[j].log();
    return true;
}

}  // namespace pycurate::fused_similarity
