#pragma once
// Blocks of rows whose values a group of threads makes in any order and adds up in theirs.
#include <cstdint>

#include "cuda/block_order.h"

namespace pycurate::cuda {

constexpr std::uint32_t sweep_threads = 256;

/// Calls make(at, place) for every `lanes`-th of the block's values, by some thread, for it to leave the
/// terms of values `at` to `at` + lanes - 1 at `place`; and add(begin, count, terms, tile), by all threads,
/// for each tile in order. While some threads add up a tile, the others make the next.
template <std::uint32_t lanes, class Term, class Make, class Add>
__device__ void walk_block(std::uint32_t values, Term (*terms)[tile_values], const Make& make,
                           const Add& add) {
    std::uint32_t tile = 0;
    for (std::uint32_t begin = 0; begin < values; begin += tile_values, ++tile) {
        Term* here = terms[tile & 1u];
        const std::uint32_t count = min(tile_values, values - begin);
        for (std::uint32_t place = threadIdx.x * lanes; place < count; place += sweep_threads * lanes)
            make(begin + place, here + place);
        __syncthreads();
        add(begin, count, here, tile);
    }
    __syncthreads();
}

/// sums[s] = the terms whose places in the block are congruent to s modulo `period`, one after another:
/// each(term, sum) gives the next sum.
template <class Term, class Each>
__device__ void add_chains(std::uint32_t begin, std::uint32_t count, const Term* terms, std::uint32_t tile,
                           std::uint32_t period, double* sums, const Each& each) {
    const std::uint32_t chains = chains_of(count, period);
    for (std::uint32_t chain = first_chain(threadIdx.x, tile, sweep_threads); chain < chains;
         chain += sweep_threads) {
        double* place = sums + sum_of_chain(begin, chain, period);
        double sum = *place;
        for (std::uint32_t at = chain; at < count; at += period) sum = each(terms[at], sum);
        *place = sum;
    }
}

}  // namespace pycurate::cuda
