#include <cstdio>
#include <cstring>
#include <vector>

#include "check.h"
#include "common/isa.h"

namespace pycurate::tests {
namespace {

struct Entry {
    const char* name;
    void (*run)();
};

std::vector<Entry>& entries() {
    static std::vector<Entry> all;
    return all;
}

std::size_t failures = 0;

const char* name_of(Isa isa) {
    switch (isa) {
        case Isa::avx512: return "avx512";
        case Isa::avx2: return "avx2";
        case Isa::scalar: break;
    }
    return "scalar";
}

}  // namespace

Test::Test(const char* name, void (*run)()) { entries().push_back({name, run}); }

void check(bool ok, const std::string& what, std::source_location where) {
    if (ok) return;
    ++failures;
    std::printf("%s:%u: [%s] %s\n", where.file_name(), static_cast<unsigned>(where.line()),
                name_of(active_isa()), what.c_str());
}

/// Runs the tests whose name contains `filter`, for every instruction set, or only for the strongest; returns
/// how many ran.
std::size_t run_all(const char* filter, bool strongest) {
    std::size_t ran = 0;
    for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
        if (strongest && isa != detected_isa()) continue;
        if (!set_active_isa(isa)) continue;
        for (const Entry& entry : entries()) {
            if (std::strstr(entry.name, filter) == nullptr) continue;
            std::printf("[%s] %s\n", name_of(isa), entry.name);
            entry.run();
            ++ran;
        }
    }
    return ran;
}

}  // namespace pycurate::tests

int main(int argc, char** argv) {
    using namespace pycurate::tests;
    const bool strongest = argc > 2 && std::strcmp(argv[2], "strongest") == 0;
    const std::size_t ran = run_all(argc > 1 ? argv[1] : "", strongest);
    std::printf("%zu tests ran, %zu checks failed\n", ran, failures);
    return ran > 0 && failures == 0 ? 0 : 1;
}
