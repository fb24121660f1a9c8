#pragma once
// The sweeps over vector types F (float) and D (double) of each instruction set. Everything has internal
// linkage: a template that left this file as a weak symbol could run on a CPU without the instruction set.
//
// A vector type provides Value, Vector, lanes, zero, set(x), load, store, add, subtract, multiply,
// multiply_add(x, y, sum) rounded once, add_sizes(x, sums): |x[l]| added to lanes float64, and
// add_products(x, y, sums) likewise, exact in float64 before the sum for float, fused for double.
#include "kernels/graph/labelled.h"
#include "kernels/graph/sweeps.h"

namespace pycurate::graph {
namespace {

constexpr std::size_t most_vectors = 8;

/// sums = the weighted sum over the edges, `count` vectors from `state` and `sums` on.
template <class V, std::size_t count, class Index>
void gather_tile(const Index* indices, const typename V::Value* values, std::size_t degree,
                 const typename V::Value* state, std::size_t width, typename V::Value* sums) noexcept {
    typename V::Vector total[count];
    for (std::size_t v = 0; v < count; ++v) total[v] = V::zero();
    for (std::size_t e = 0; e < degree; ++e) {
        const auto* row = state + static_cast<std::size_t>(indices[e]) * width;
        const auto weight = V::set(values[e]);
        for (std::size_t v = 0; v < count; ++v)
            total[v] = V::multiply_add(weight, V::load(row + v * V::lanes), total[v]);
    }
    for (std::size_t v = 0; v < count; ++v) V::store(total[v], sums + v * V::lanes);
}

template <class V, class Index>
void gather(const Index* indices, const typename V::Value* values, std::size_t degree,
            const typename V::Value* state, std::size_t width, typename V::Value* sums) noexcept {
    for (std::size_t c = 0; c < width;) {
        const std::size_t left = (width - c) / V::lanes;
        switch (left < most_vectors ? left : most_vectors) {
            case 1: gather_tile<V, 1>(indices, values, degree, state + c, width, sums + c); break;
            case 2: gather_tile<V, 2>(indices, values, degree, state + c, width, sums + c); break;
            case 3: gather_tile<V, 3>(indices, values, degree, state + c, width, sums + c); break;
            case 4: gather_tile<V, 4>(indices, values, degree, state + c, width, sums + c); break;
            case 5: gather_tile<V, 5>(indices, values, degree, state + c, width, sums + c); break;
            case 6: gather_tile<V, 6>(indices, values, degree, state + c, width, sums + c); break;
            case 7: gather_tile<V, 7>(indices, values, degree, state + c, width, sums + c); break;
            default: gather_tile<V, 8>(indices, values, degree, state + c, width, sums + c); break;
        }
        c += (left < most_vectors ? left : most_vectors) * V::lanes;
    }
}

/// sums (width,) of row i of the range.
template <class V>
void gather_row(const Edges<typename V::Value>& edges, std::size_t i, const typename V::Value* state,
                std::size_t width, typename V::Value* sums) noexcept {
    const std::size_t start = edges.indptr[i] - edges.indptr[0],
                      degree = edges.indptr[i + 1] - edges.indptr[i];
    const auto* values = edges.values + start;
    if (edges.wide)
        gather<V>(static_cast<const std::uint64_t*>(edges.indices) + start, values, degree, state, width,
                  sums);
    else
        gather<V>(static_cast<const std::uint32_t*>(edges.indices) + start, values, degree, state, width,
                  sums);
}

template <class V>
void dense(const DenseSweep<typename V::Value>& sweep, std::size_t begin, std::size_t end,
           RowRoom<typename V::Value> room, double* changes) noexcept {
    using Value = typename V::Value;
    const auto& seeds = sweep.seeds;
    const auto alpha = V::set(sweep.alpha), omega = V::set(sweep.omega);
    const std::size_t width = sweep.width;
    for (std::size_t i = begin; i < end; ++i) {
        if (seeds.clamped != nullptr && seeds.clamped[i] != 0)
            for (std::size_t c = 0; c < width; ++c) room.sums[c] = 0;
        else
            gather_row<V>(sweep.edges, i, sweep.state, width, room.sums);
        const std::size_t first = seeds.indptr != nullptr ? seeds.indptr[i] - seeds.indptr[0] : 0;
        const std::size_t last = seeds.indptr != nullptr ? seeds.indptr[i + 1] - seeds.indptr[0] : 0;
        for (std::size_t s = first; s < last; ++s) room.seeds[seeds.labels[s]] = seeds.values[s];
        const Value* current = sweep.state + (sweep.edges.first_row + i) * width;
        Value* out = sweep.out + i * width;
        for (std::size_t c = 0; c < width; c += V::lanes) {
            auto value = V::multiply(alpha, V::load(room.sums + c));
            if (first != last) value = V::add(value, V::load(room.seeds + c));
            V::add_sizes(V::subtract(value, V::load(current + c)), changes + c % change_lanes);
            if (sweep.previous != nullptr) {
                const auto previous = V::load(sweep.previous + i * width + c);
                value = V::multiply_add(omega, V::subtract(value, previous), previous);
            }
            V::store(value, out + c);
        }
        for (std::size_t s = first; s < last; ++s) room.seeds[seeds.labels[s]] = 0;
    }
}

// -- the largest few ---------------------------------------------------------------------------------------

/// Sums by label in a table that is cleared for every row: quickest where it takes few lines.
struct Table {
    TableRoom room;
    std::size_t labels;
    void clear() noexcept {
        for (std::size_t c = 0; c < labels; ++c) room.sums[c] = 0;
    }
    float& at(std::uint32_t label) noexcept { return room.sums[label]; }
    void scale(float alpha) noexcept {
        for (std::size_t c = 0; c < labels; ++c) room.sums[c] *= alpha;
    }
    /// Those above what `least()` is at the time; the others need not be named.
    template <class Least, class Each>
    void each_above(const Least& least, const Each& each) noexcept {
        constexpr std::size_t step = 16;
        for (std::size_t c = 0; c < labels; c += step) {
            const float bound = least();
            bool some = false;
            for (std::size_t l = 0; l < step; ++l) some |= room.sums[c + l] > bound;
            if (!some) continue;
            for (std::size_t l = 0; l < step; ++l)
                if (room.sums[c + l] > least()) each(static_cast<std::uint32_t>(c + l), room.sums[c + l]);
        }
    }
};

/// The same with a list of the labels that are there, which alone are cleared.
struct List {
    TableRoom room;
    std::uint32_t touched = 0;
    void clear() noexcept {
        for (std::uint32_t t = 0; t < touched; ++t) room.seen[room.touched[t]] = 0;
        touched = 0;
    }
    float& at(std::uint32_t label) noexcept {
        if (room.seen[label] == 0) {
            room.seen[label] = 1;
            room.sums[label] = 0;
            room.touched[touched++] = label;
        }
        return room.sums[label];
    }
    void scale(float alpha) noexcept {
        for (std::uint32_t t = 0; t < touched; ++t) room.sums[room.touched[t]] *= alpha;
    }
    template <class Least, class Each>
    void each_above(const Least&, const Each& each) noexcept {
        for (std::uint32_t t = 0; t < touched; ++t) each(room.touched[t], room.sums[room.touched[t]]);
    }
};

/// Add the values that the neighbours in edges `first` to `last` - 1 hold; there are `count` edges.
template <class Sums, class Index>
void scatter(const Index* indices, std::size_t first, std::size_t last, std::size_t count,
             const TopSweep& sweep, Sums& sums) noexcept {
    // A line or two a neighbour, at random: those of the next rows are asked for in time, too.
    constexpr std::size_t ahead = 16;
    const std::size_t kept = sweep.kept;
    for (std::size_t e = first; e < last; ++e) {
        if (e + ahead < count)
            __builtin_prefetch(sweep.state + static_cast<std::size_t>(indices[e + ahead]) * kept);
        const Labelled* held = sweep.state + static_cast<std::size_t>(indices[e]) * kept;
        const float weight = sweep.edges.values[e];
        for (std::size_t k = 0; k < kept && held[k].label != no_label; ++k) {
            float& sum = sums.at(held[k].label);
            sum = __builtin_fmaf(weight, held[k].value, sum);
        }
    }
}

template <class Sums>
double top_by(const TopSweep& sweep, std::size_t begin, std::size_t end, Sums sums) noexcept {
    const auto& edges = sweep.edges;
    const auto& seeds = sweep.seeds;
    const std::size_t count = edges.indptr[edges.rows] - edges.indptr[0];
    double change = 0;
    for (std::size_t i = begin; i < end; ++i) {
        sums.clear();
        if (seeds.clamped == nullptr || seeds.clamped[i] == 0) {
            const std::size_t first = edges.indptr[i] - edges.indptr[0];
            const std::size_t last = edges.indptr[i + 1] - edges.indptr[0];
            if (edges.wide)
                scatter(static_cast<const std::uint64_t*>(edges.indices), first, last, count, sweep, sums);
            else
                scatter(static_cast<const std::uint32_t*>(edges.indices), first, last, count, sweep, sums);
        }
        sums.scale(sweep.alpha);
        if (seeds.indptr != nullptr)
            for (std::size_t s = seeds.indptr[i] - seeds.indptr[0]; s < seeds.indptr[i + 1] - seeds.indptr[0];
                 ++s)
                sums.at(seeds.labels[s]) += seeds.values[s];
        Labelled* out = sweep.out + i * sweep.kept;
        for (std::size_t k = 0; k < sweep.kept; ++k) out[k] = {no_label, 0.0f};
        sums.each_above([&] { return out[sweep.kept - 1].value; },
                        [&](std::uint32_t label, float value) { insert(out, sweep.kept, {label, value}); });
        change += change_of(out, sweep.state + (edges.first_row + i) * sweep.kept, sweep.kept);
    }
    sums.clear();
    return change;
}

inline double top(const TopSweep& sweep, std::size_t begin, std::size_t end, TableRoom room) noexcept {
    if (sweep.labels <= table_labels) return top_by(sweep, begin, end, Table{room, padded(sweep.labels)});
    return top_by(sweep, begin, end, List{room});
}

// -- conjugate gradients -----------------------------------------------------------------------------------

template <class V>
void product(const Edges<float>& edges, const std::uint8_t* clamped, const float* direction, float* product,
             std::size_t width, float alpha, std::size_t begin, std::size_t end, double* dots) noexcept {
    const auto minus_alpha = V::set(-alpha);
    for (std::size_t i = begin; i < end; ++i) {
        float* out = product + i * width;
        if (clamped != nullptr && clamped[i] != 0) {
            for (std::size_t c = 0; c < width; ++c) out[c] = 0;
            continue;
        }
        gather_row<V>(edges, i, direction, width, out);
        const float* own = direction + (edges.first_row + i) * width;
        for (std::size_t c = 0; c < width; c += V::lanes) {
            const auto value = V::load(own + c);
            const auto applied = V::multiply_add(minus_alpha, V::load(out + c), value);
            V::store(applied, out + c);
            V::add_products(value, applied, dots + c);
        }
    }
}

template <class V>
void step(const CgStep& of, std::size_t begin, std::size_t end, double* squares, double* changes) noexcept {
    const auto zero = V::zero();
    for (std::size_t i = begin; i < end; ++i)
        for (std::size_t c = 0; c < of.width; c += V::lanes) {
            const std::size_t at = i * of.width + c;
            const auto size = V::load(of.step + c);
            V::store(V::multiply_add(size, V::load(of.direction + at), V::load(of.x + at)), of.x + at);
            const auto residual =
                V::multiply_add(V::subtract(zero, size), V::load(of.product + at), V::load(of.residual + at));
            V::store(residual, of.residual + at);
            V::add_products(residual, residual, squares + c);
            V::add_sizes(residual, changes + c % change_lanes);
        }
}

template <class V>
void turn(const float* residual, const float* ratio, float* direction, std::size_t width, std::size_t begin,
          std::size_t end) noexcept {
    for (std::size_t i = begin; i < end; ++i)
        for (std::size_t c = 0; c < width; c += V::lanes) {
            const std::size_t at = i * width + c;
            V::store(V::multiply_add(V::load(ratio + c), V::load(direction + at), V::load(residual + at)),
                     direction + at);
        }
}

}  // namespace
}  // namespace pycurate::graph
