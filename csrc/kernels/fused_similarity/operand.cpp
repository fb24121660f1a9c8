#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "common/float_environment.h"
#include "common/thread_pool.h"
#include "kernels/fused_similarity/fused_similarity.h"
#include "kernels/fused_similarity/shares.h"
#include "kernels/rowwise/similarity.h"

namespace pycurate::fused_similarity {
namespace {

// A share that lets every pair pass, and two of which still fit an int32 with any sum.
constexpr std::int32_t passing_share = 1 << 29;
constexpr std::size_t task_panels = 16;

/// Orthonormal mixing of d coordinates: Hadamard transforms of the largest power of two at the front, at the
/// back and in the middle, which overlap unless d is a power of two itself.
void rotate(const Kernels& kernels, float* x, std::size_t d, const float* signs) noexcept {
    for (std::size_t t = 0; t < transforms_of(d); ++t) {
        kernels.flip(x, d, signs + t * d);
        kernels.hadamard(x + transform_begin(d, t) * lanes, transform_width(d));
    }
}

AlignedBuffer<float> in_chunks(const float* rows, std::size_t count, std::size_t d) {
    const std::size_t chunks = (count + lanes - 1) / lanes;
    AlignedBuffer<float> out(std::max<std::size_t>(chunks * d * lanes, 1));
    std::fill_n(out.data(), out.size(), 0.0f);
    for (std::size_t i = 0; i < count; ++i)
        for (std::size_t j = 0; j < d; ++j) out[((i / lanes) * d + j) * lanes + i % lanes] = rows[i * d + j];
    return out;
}

}  // namespace

Screening::Screening(const float* rows, std::size_t p_, std::size_t d_, const float* centroid_rows,
                     std::size_t c, std::size_t cluster_coordinates_, std::vector<std::size_t> stages_,
                     std::vector<float> norms_)
    : p(p_),
      d(d_),
      centroid_count(c),
      cluster_coordinates(cluster_coordinates_),
      stages(std::move(stages_)),
      norms(std::move(norms_)),
      projection(in_chunks(rows, p_, d_)),
      centroids(in_chunks(centroid_rows, c, cluster_coordinates_)),
      defect(defect_of(rows, p_, d_)) {}

void Operand::scores(const std::uint32_t* positions, const Operand& other, const std::uint32_t* others,
                     std::size_t count, float* out) const noexcept {
    constexpr std::size_t most = 64;
    const void *xs[most], *ys[most];
    double dots[most];
    const auto sum = rowwise::active_kernels().dots_anywhere[static_cast<int>(element)];
    for (std::size_t begin = 0; begin < count; begin += most) {
        const std::size_t part = std::min(most, count - begin);
        const std::uint32_t *is = positions + begin, *js = others + begin;
        for (std::size_t k = 0; k < part; ++k) xs[k] = data_at(is[k]), ys[k] = other.data_at(js[k]);
        sum(xs, ys, part, d, dots);
        for (std::size_t k = 0; k < part; ++k)
            out[begin + k] = rowwise::similarity_of(metric, dots[k], squares[is[k]], other.squares[js[k]]);
    }
}

void Operand::widen(std::size_t position, float* out) const noexcept {
    const auto from = static_cast<int>(element);
    rowwise::active_kernels().convert[from][static_cast<int>(Element::float32)](data_at(position), d, out);
    std::fill(out + d, out + (d + lanes - 1) / lanes * lanes, 0.0f);
}

std::size_t Operand::bytes() const noexcept {
    std::size_t sum = rows.size() * 8 + order.size() * 4 + squares.size() * 8 + factors.size() * 8;
    for (const Stage& stage : stages) sum += stage.panels.bytes() + stage.start.size() * 12;
    return sum;
}

std::unique_ptr<Operand> Operand::prepare(Matrix x, std::size_t d, Element element, const std::int64_t* rows,
                                          std::size_t n, Metric metric, const Screening* screening,
                                          Precision precision, std::size_t threads, const Poll& poll) {
    std::unique_ptr<Operand> result(new Operand);
    Operand& o = *result;
    o.n = n, o.d = d, o.element = element, o.metric = metric, o.x_ = x;
    o.kernels = &active_kernels();
    o.rows.resize(n);
    if (rows != nullptr)
        std::copy_n(rows, n, o.rows.data());
    else
        std::iota(o.rows.begin(), o.rows.end(), std::int64_t{0});
    o.order.resize(n);
    std::iota(o.order.begin(), o.order.end(), 0u);
    const auto stop = [&] { return poll && poll(0.0); };
    // A prefix says nothing where it was not made for these rows.
    const Screening* used = screening != nullptr && screening->d == d ? screening : nullptr;
    if (precision == Precision::exact && used != nullptr && used->centroid_count > 1 &&
        !o.order_by_cluster(*used, threads, stop))
        return nullptr;
    o.squares.assign(o.positions(), 0.0);
    const auto& sums = rowwise::active_kernels().row_sums[static_cast<int>(element)];
    constexpr std::size_t block = 1024;
    const bool finished =
        parallel_for((n + block - 1) / block, threads,
                     [&](std::size_t t) {
                         const DefaultFloatEnvironment environment;
                         for (std::size_t i = t * block; i < std::min(n, (t + 1) * block); ++i)
                             sums({o.data_at(i), 0}, 1, d, {}, &o.squares[i]);
                     },
                     stop);
    if (!finished) return nullptr;
    o.factors.assign(o.positions(), 0.0f);
    o.biases.assign(o.positions(), 0.0f);
    for (std::size_t i = 0; i < n; ++i) {
        o.factors[i] = factor_of(metric, o.squares[i]);
        o.biases[i] = bias_of(metric, o.squares[i], d);
    }
    if (precision == Precision::exact && d <= most_coordinates && d > 0 && !o.quantise(used, threads, stop))
        return nullptr;
    return result;
}

namespace {

/// Sixteen positions, widened, normalised, transposed: lane = position.
class Rows16 {
  public:
    explicit Rows16(std::size_t d)
        : width_((d + lanes - 1) / lanes * lanes), rows_(lanes * width_), x(width_ * lanes) {
        std::fill_n(rows_.data(), rows_.size(), 0.0f);
    }
    void load(const Operand& o, std::size_t begin, const double* squares) {
        float factors[lanes];
        for (std::size_t l = 0; l < lanes; ++l) {
            factors[l] = 0.0f;
            if (begin + l >= o.n) continue;
            float* row = rows_.data() + l * width_;
            if (o.element == Element::int8) {
                const auto* bytes = static_cast<const std::int8_t*>(o.data_at(begin + l));
                for (std::size_t j = 0; j < o.d; ++j) row[j] = static_cast<float>(bytes[j]);
            } else {
                o.widen(begin + l, row);
            }
            const double square = squares[l];
            if (square > 0) factors[l] = static_cast<float>(1.0 / std::sqrt(square));
            // A row shorter than float32 can invert counts as 0 here: fragile, or of no length for other
            // metrics.
            if (!(square >= fragile_square)) factors[l] = 0.0f;
        }
        o.kernels->transpose(rows_.data(), width_, o.d, factors, x.data());
    }

  private:
    std::size_t width_;
    AlignedBuffer<float> rows_;

  public:
    AlignedBuffer<float> x;  // [d][16]
};

}  // namespace

bool Operand::order_by_cluster(const Screening& screening, std::size_t threads,
                               const std::function<bool()>& poll) {
    std::vector<std::uint32_t> clusters(n);
    constexpr std::size_t block = 16 * lanes;
    const auto& sums = rowwise::active_kernels().row_sums[static_cast<int>(element)];
    const std::size_t p = screening.cluster_coordinates;
    const auto task = [&](std::size_t t) {
        const DefaultFloatEnvironment environment;
        Rows16 rows16(d);
        const std::size_t chunks = (p + lanes - 1) / lanes;
        AlignedBuffer<float> projected(chunks * lanes * lanes), dots(lanes * lanes);
        for (std::size_t begin = t * block; begin < std::min(n, (t + 1) * block); begin += lanes) {
            double squares16[lanes] = {};
            for (std::size_t l = 0; l < lanes && begin + l < n; ++l)
                sums({data_at(begin + l), 0}, 1, d, {}, &squares16[l]);
            rows16.load(*this, begin, squares16);
            for (std::size_t c = 0; c < chunks; ++c)
                kernels->project(rows16.x.data(), d, screening.projection.data() + c * d * lanes,
                                 projected.data() + c * lanes * lanes);
            float best[lanes];
            std::uint32_t at[lanes] = {};
            std::fill_n(best, lanes, -2.0f);
            for (std::size_t c = 0; c < screening.centroid_count; c += lanes) {
                kernels->project(projected.data(), p, screening.centroids.data() + c * p, dots.data());
                const std::size_t count = std::min(lanes, screening.centroid_count - c);
                for (std::size_t i = 0; i < count; ++i)
                    for (std::size_t l = 0; l < lanes; ++l) {
                        const bool nearer = dots[i * lanes + l] > best[l];
                        best[l] = nearer ? dots[i * lanes + l] : best[l];
                        at[l] = nearer ? static_cast<std::uint32_t>(c + i) : at[l];
                    }
            }
            for (std::size_t l = 0; l < lanes && begin + l < n; ++l) clusters[begin + l] = at[l];
        }
    };
    if (!parallel_for((n + block - 1) / block, threads, task, poll)) return false;
    std::vector<std::size_t> begin(screening.centroid_count + 1, 0);
    for (const auto cluster : clusters) ++begin[cluster + 1];
    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    for (std::size_t i = 0; i < n; ++i) order[begin[clusters[i]]++] = static_cast<std::uint32_t>(i);
    return true;
}

bool Operand::quantise(const Screening* screening, std::size_t threads, const std::function<bool()>& poll) {
    const std::size_t padded = positions();
    const auto add_stage = [&](std::size_t coordinates, double norm) -> Stage& {
        Stage& s = stages.emplace_back();
        s.coordinates = coordinates;
        s.steps = (coordinates + step_coordinates - 1) / step_coordinates;
        s.scale = scale_of(coordinates, norm);
        // 1e-6: normalising and the arithmetic of Kernels::bound, of a few roundings each.
        s.extra = canonical_error_of(d) + 1e-6;
        return s;
    };
    if (screening != nullptr)
        for (std::size_t i = 0; i < screening->stages.size(); ++i)
            add_stage(screening->stages[i], static_cast<double>(screening->norms[i])).extra +=
                2.0 * screening->defect + screening->defect * screening->defect;
    const std::size_t projected_stages = stages.size();
    // The beginnings of a rotated row are prefixes, too: of a flat spectrum as good as any, and made for
    // nothing.
    for (const auto& [part, whole] :
         {std::pair<std::size_t, std::size_t>{1, 8}, {3, 16}, {1, 4}, {3, 8}, {1, 2}}) {
        const std::size_t coordinates = d * part / whole / lanes * lanes;
        if (coordinates > 0 && (stages.size() == projected_stages || coordinates > stages.back().coordinates))
            add_stage(coordinates, 1.0);
    }
    add_stage(d, 1.0);
    const std::size_t last = stages.size() - 1;
    for (std::size_t i = 0; i <= last; ++i) {
        Stage& s = stages[i];
        s.source = i < projected_stages ? i : last;
        if (s.source == last) s.scale = stages[last].scale;
        s.unit = s.scale * s.scale * (kernels->halved_group ? 2.0 : 1.0);
        if (s.source == i)
            s.panels = AlignedBuffer<std::int8_t>(padded / panel_rows * s.steps * panel_step_bytes);
        s.start.resize(padded), s.group_share.resize(padded), s.panel_share.resize(padded);
    }
    const std::vector<float> signs = rotation_signs(d);
    const std::size_t chunks =
        projected_stages > 0 ? (stages[projected_stages - 1].coordinates + lanes - 1) / lanes : 0;

    /// Shares of 16 rows in one stage from the sums over its coordinates. `lost`: of a unit vector in float32
    /// before quantising.
    const auto set_shares = [&](Stage& s, std::size_t begin, const Sums16& sums, double lost) {
        const bool whole = &s == &stages.back();
        for (std::size_t l = 0; l < lanes; ++l) {
            const std::size_t i = begin + l;
            const double as_column = share_of({sums.squares[l], sums.errors[l]}, s.coordinates, whole, lost);
            const double as_row = kernels->halved_group ? share_of({sums.squares[l], sums.halved_errors[l]},
                                                                   s.coordinates, whole, lost)
                                                        : as_column;
            s.panel_share[i] = in_units(as_column, s.unit, passing_share);
            s.group_share[i] = in_units(as_row, s.unit, passing_share);
            if (!(squares[i] >= fragile_square)) s.panel_share[i] = s.group_share[i] = passing_share;
            if (i >= n) s.panel_share[i] = s.group_share[i] = -passing_share;
            // The group's bytes are q + 128, or stand for q = 2 * byte - 127.5.
            const double offset =
                (kernels->halved_group ? -63.75 : -128.0) * static_cast<double>(sums.quantised[l]);
            s.start[i] = static_cast<std::int32_t>(std::ceil(offset)) + s.panel_share[i];
        }
    };
    // A rotation rounds once a level; a projected coordinate d times, of a sum below 1 in magnitude, which
    // makes sqrt(coordinates) times that of a vector.
    const double rotation_error = gamma(rotation_roundings);
    const auto& quantise_rows = kernels->quantise[kernels->halved_group];

    const auto task = [&](std::size_t t) {
        const DefaultFloatEnvironment environment;
        Rows16 rows16(d);
        AlignedBuffer<float> projected(std::max<std::size_t>(chunks, 1) * lanes * lanes),
            work(std::max<std::size_t>(chunks, 1) * lanes * lanes);
        const std::size_t groups = std::min(padded, (t + 1) * task_panels * panel_rows) / lanes;
        for (std::size_t g = t * task_panels * panel_rows / lanes; g < groups; ++g) {
            const std::size_t begin = g * lanes;
            const auto place = [&](const Stage& s) {
                return begin / panel_rows * s.steps * panel_step_bytes +
                       begin % panel_rows * step_coordinates;
            };
            rows16.load(*this, begin, squares.data() + begin);
            for (std::size_t c = 0; c < chunks; ++c)
                kernels->project(rows16.x.data(), d, screening->projection.data() + c * d * lanes,
                                 projected.data() + c * lanes * lanes);
            for (std::size_t i = 0; i < projected_stages; ++i) {
                Stage& s = stages[i];
                std::copy_n(projected.data(), s.coordinates * lanes, work.data());
                rotate(*kernels, work.data(), s.coordinates, signs.data());
                Sums16 sums;
                quantise_rows(work.data(), s.coordinates, static_cast<float>(s.scale),
                              s.panels.data() + place(s), sums);
                set_shares(s, begin, sums,
                           rotation_error +
                               gamma(static_cast<double>(d)) * std::sqrt(static_cast<double>(s.coordinates)));
            }
            rotate(*kernels, rows16.x.data(), d, signs.data());
            Sums16 sums;
            std::size_t done = 0;
            for (std::size_t i = projected_stages; i <= last; ++i) {
                quantise_rows(rows16.x.data() + done * lanes, stages[i].coordinates - done,
                              static_cast<float>(stages[last].scale),
                              stages[last].panels.data() + place(stages[last]) +
                                  done / step_coordinates * panel_step_bytes,
                              sums);
                done = stages[i].coordinates;
                set_shares(stages[i], begin, sums, rotation_error);
            }
        }
    };
    return parallel_for((panels() + task_panels - 1) / task_panels, threads, task, poll);
}

}  // namespace pycurate::fused_similarity
