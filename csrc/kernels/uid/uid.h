#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>

namespace pycurate::uid {

/// A 128-bit uid: the first and the last 16 of its 32 hex digits. Ordered by (high, low).
struct Uid {
    std::uint64_t high, low;
};

/// One entry per kernel; every instruction set fills the same table.
struct Kernels {
    /// Read n texts of 32 hex digits each, either case, one after the other: text is (n, 32) bytes, any
    /// alignment. Returns the first row that is not 32 hex digits, or n; rows before it are written, the rest
    /// of out may be not.
    std::size_t (*parse_hex)(const char* text, std::size_t n, Uid* out) noexcept;
    /// Write n texts of 32 lower-case hex digits, one after the other; text: (n, 32) bytes.
    void (*format_hex)(const Uid* uids, std::size_t n, char* text) noexcept;
};

extern const Kernels scalar, avx2;

/// The one dispatch point of this family.
const Kernels& active_kernels() noexcept;

/// First row i for which offsets[i + 1] - offsets[i] != 32, or n; offsets: (n + 1,).
std::size_t first_not_32(const std::int32_t* offsets, std::size_t n) noexcept;
std::size_t first_not_32(const std::int64_t* offsets, std::size_t n) noexcept;

/// Sort keys (n,) in place and permute payload (n,), when it is not null, along; stable. Needs scratch for n
/// keys and payloads. Returns false when `poll` stopped it: then keys and payload hold rows in no order, some
/// lost.
bool sort(Uid* keys, std::size_t n, std::size_t threads, const std::function<bool()>& poll);
bool sort(Uid* keys, std::uint32_t* payload, std::size_t n, std::size_t threads,
          const std::function<bool()>& poll);
bool sort(Uid* keys, std::uint64_t* payload, std::size_t n, std::size_t threads,
          const std::function<bool()>& poll);

/// First i > 0 with uids[i] < uids[i - 1] (strict: <=), or n.
std::size_t first_unsorted(const Uid* uids, std::size_t n, bool strict) noexcept;

/// What becomes of a uid that is c times in a and d times in b.
enum class Algebra {
    intersect,  // min(c, d) times in the result
    unite,      // max(c, d)
    minus,      // max(c - d, 0)
    without,    // c if d == 0, else 0
    add,        // c + d
};

/// Rows of a and b that are done, and rows of out that are written.
struct Progress {
    std::size_t a, b, out;
};

/// Merge sorted a (na,) and b (nb,), both from `from` on, into out, until out holds `capacity` rows, both are
/// at their ends, or `steps` rows were looked at. from.out is not read; the result's `out` counts from 0.
Progress merge(Algebra op, const Uid* a, std::size_t na, const Uid* b, std::size_t nb, Progress from,
               Uid* out, std::size_t capacity, std::size_t steps) noexcept;

/// positions[i]: the first place of queries[i] in sorted (n,), or -1. Both sorted.
void find(const Uid* sorted, std::size_t n, const Uid* queries, std::size_t m,
          std::int64_t* positions) noexcept;

/// Different keys in sorted (n,).
std::size_t count_distinct(const Uid* sorted, std::size_t n) noexcept;
/// Each key of sorted (n,) once and how often it is there; keys, counts: (count_distinct(sorted, n),).
void run_lengths(const Uid* sorted, std::size_t n, Uid* keys, std::int64_t* counts) noexcept;

}  // namespace pycurate::uid
