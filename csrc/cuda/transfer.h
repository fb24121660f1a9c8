#pragma once
// Rows on their way from the CPU's memory to a device.
#include <cstddef>
#include <cstdint>

namespace pycurate::cuda {

/// Copies n rows of `width` bytes to the current device, `pitch` bytes apart there: row i is the
/// `numbers[i]`-th of `from`, or the i-th where `numbers` is null; rows of `from` are `stride` bytes apart,
/// which may be negative.
void upload_rows(char* to, std::size_t pitch, const char* from, std::ptrdiff_t stride,
                 const std::int64_t* numbers, std::size_t width, std::size_t n);

}  // namespace pycurate::cuda
