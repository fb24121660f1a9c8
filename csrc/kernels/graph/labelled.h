#pragma once
// The largest few values of a row, as CPUs and CUDA kernels keep and compare them. Internal linkage: see
// sweeps_body.h.
#include "common/host_device.h"
#include "kernels/graph/graph.h"

namespace pycurate::graph {
namespace {

/// Put in its place what belongs among the `kept` largest; whether it does.
PYCURATE_HOST_DEVICE inline bool insert(Labelled* out, std::size_t kept, Labelled item) noexcept {
    const auto before = [](Labelled a, Labelled b) {
        return a.value > b.value || (a.value == b.value && a.label < b.label);
    };
    if (!(item.value > 0.0f) || !before(item, out[kept - 1])) return false;
    std::size_t place = kept - 1;
    for (; place > 0 && before(item, out[place - 1]); --place) out[place] = out[place - 1];
    out[place] = item;
    return true;
}

PYCURATE_HOST_DEVICE inline double distance(float a, float b) noexcept {
    const double difference = static_cast<double>(a) - static_cast<double>(b);
    return difference < 0 ? -difference : difference;
}

/// Sum of |new - old| over the labels of both.
PYCURATE_HOST_DEVICE inline double change_of(const Labelled* now, const Labelled* before,
                                             std::size_t kept) noexcept {
    double change = 0;
    for (std::size_t i = 0; i < kept && now[i].label != no_label; ++i) {
        float old = 0;
        for (std::size_t j = 0; j < kept; ++j)
            if (before[j].label == now[i].label) old = before[j].value;
        change += distance(now[i].value, old);
    }
    for (std::size_t j = 0; j < kept && before[j].label != no_label; ++j) {
        bool gone = true;
        for (std::size_t i = 0; i < kept; ++i) gone &= now[i].label != before[j].label;
        if (gone) change += distance(before[j].value, 0.0f);
    }
    return change;
}

}  // namespace
}  // namespace pycurate::graph
