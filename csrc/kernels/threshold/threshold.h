#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/uid/uid.h"

/// Exact order statistics by counting 16-bit digits of order-preserving keys.
///
/// The key of a float is an unsigned integer of its width: the bits with the sign bit flipped when it is
/// clear, else all bits flipped; -0 has the key of +0. So keys are ordered as the values are: float32 has 2
/// digits, float64 has 4, a uid is its own key and has 8. Digit 0 is the highest.
namespace pycurate::threshold {

/// One entry per kernel; every instruction set fills the same table.
struct Kernels {
    /// Adds to counts[v] the rows whose digit number `digit` is v, among the rows with mask[i] != 0 (all rows
    /// when mask is null) that are not NaN and whose earlier digits, as one number, equal `prefix` (0 for
    /// digit 0). values: (n,) IEEE bits, aligned; mask: (n,); counts: (65536,).
    void (*count_f32)(const std::uint32_t* values, const std::uint8_t* mask, std::size_t n, unsigned digit,
                      std::uint64_t prefix, std::int64_t* counts) noexcept;
    void (*count_f64)(const std::uint64_t* values, const std::uint8_t* mask, std::size_t n, unsigned digit,
                      std::uint64_t prefix, std::int64_t* counts) noexcept;
};

extern const Kernels scalar, avx2;

/// The one dispatch point of this family.
const Kernels& active_kernels() noexcept;

/// The same for uids: rows whose first `digit` digits are those of `prefix`.
void count_uid(const uid::Uid* uids, const std::uint8_t* mask, std::size_t n, unsigned digit, uid::Uid prefix,
               std::int64_t* counts) noexcept;

}  // namespace pycurate::threshold
