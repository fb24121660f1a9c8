#pragma once
#include <cstddef>
#include <memory>
#include <source_location>
#include <string>

namespace pycurate::tests {

/// Registers a test by being constructed, at namespace scope of a *_test.cpp file:
/// `const Test tests[] = {{"uid: sorting keeps ties in order", sorting_keeps_ties}};`
/// main runs every test once per instruction set that this CPU has, with `active_isa()` set to it.
struct Test {
    Test(const char* name, void (*run)());
};

/// Count a failure and print where it is, unless `ok`. The test goes on.
void check(bool ok, const std::string& what, std::source_location where = std::source_location::current());

/// `count` elements on the heap and not one byte more: AddressSanitizer sees any access beyond them.
template <class T>
std::unique_ptr<T[]> exact_buffer(std::size_t count) {
    return std::make_unique<T[]>(count);
}

}  // namespace pycurate::tests
