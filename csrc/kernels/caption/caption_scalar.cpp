#include "kernels/caption/caption.h"
#include "kernels/caption/whitespace.h"

namespace pycurate::caption {
namespace {

std::size_t count_words(const std::uint8_t* text, std::size_t size) noexcept {
    std::size_t words = 0;
    bool inside = false;
    for (std::size_t i = 0; i < size;) {
        const std::size_t space = whitespace(text + i, size - i);
        if (space == 0 && !inside) ++words;
        inside = space == 0;
        i += space == 0 ? 1 : space;
    }
    return words;
}

}  // namespace

extern const Kernels scalar{count_words};

}  // namespace pycurate::caption
