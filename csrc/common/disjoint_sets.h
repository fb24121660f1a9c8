#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace pycurate {

/// Disjoint sets of 0 to n - 1 that several threads join: a root points at itself, and only roots are made to
/// point elsewhere, at a smaller number, so that two threads cannot make a ring. Once all have joined, the
/// root of a set is its smallest number, whatever the order.
class DisjointSets {
  public:
    explicit DisjointSets(std::size_t n) : parents_(n) {
        for (std::size_t i = 0; i < n; ++i)
            parents_[i].store(static_cast<std::uint32_t>(i), std::memory_order_relaxed);
    }
    std::uint32_t root(std::size_t i) noexcept {
        auto at = static_cast<std::uint32_t>(i);
        for (;;) {
            std::uint32_t parent = parents_[at].load(std::memory_order_relaxed);
            if (parent == at) return at;
            const std::uint32_t above = parents_[parent].load(std::memory_order_relaxed);
            // Halve the path; a lost race leaves it as it was.
            if (above != parent) parents_[at].compare_exchange_weak(parent, above, std::memory_order_relaxed);
            at = above;
        }
    }
    /// True when they were apart.
    bool unite(std::size_t i, std::size_t j) noexcept {
        for (;;) {
            std::uint32_t x = root(i), y = root(j);
            if (x == y) return false;
            if (x < y) std::swap(x, y);
            std::uint32_t expected = x;
            if (parents_[x].compare_exchange_strong(expected, y, std::memory_order_relaxed)) return true;
        }
    }

  private:
    std::vector<std::atomic<std::uint32_t>> parents_;
};

}  // namespace pycurate
