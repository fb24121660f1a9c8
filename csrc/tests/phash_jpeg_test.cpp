#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "kernels/phash/jpeg.h"
#include "kernels/phash/jpeg_header.h"
#include "kernels/phash/phash.h"

namespace pycurate::tests {
namespace {

using namespace phash;

using Bytes = std::vector<std::uint8_t>;

/// Codes of 2 to 16 bits for every coefficient that there is, so that each kind of look-up is asked.
struct Coder {
    std::array<std::uint8_t, 17> counts;
    Bytes symbols;

    static Coder of_dc() {
        Coder coder{{0, 0, 0, 1, 8, 2, 0, 0, 0, 0, 1}, {}};
        for (std::uint8_t size = 0; size < 12; ++size) coder.symbols.push_back(size);
        return coder;
    }
    static Coder of_ac() {
        Coder coder{{0, 0, 1, 0, 3, 0, 8, 0, 20, 0, 30, 0, 0, 60, 0, 0, 40}, {0x00, 0x01}};
        for (unsigned symbol = 0x02; symbol < 0x100; ++symbol)
            if ((symbol & 15) >= 1 && (symbol & 15) <= 10)
                coder.symbols.push_back(static_cast<std::uint8_t>(symbol));
        coder.symbols.push_back(0xf0);
        return coder;
    }
    void write(Bytes& file, std::uint8_t which) const {
        const std::size_t length = 19 + symbols.size();
        file.insert(file.end(), {0xff, 0xc4, static_cast<std::uint8_t>(length >> 8),
                                 static_cast<std::uint8_t>(length), which});
        file.insert(file.end(), counts.begin() + 1, counts.end());
        file.insert(file.end(), symbols.begin(), symbols.end());
    }
    /// The code of a symbol, and its length.
    std::pair<unsigned, unsigned> code_of(std::uint8_t symbol) const {
        unsigned code = 0, at = 0;
        for (unsigned length = 1; length <= 16; ++length, code *= 2)
            for (unsigned i = 0; i < counts[length]; ++i, ++code, ++at)
                if (symbols[at] == symbol) return {code, length};
        return {0, 0};
    }
};

class BitWriter {
  public:
    explicit BitWriter(Bytes& file) : file_(file) {}

    void put(unsigned value, unsigned bits) {
        while (bits-- > 0) {
            now_ = now_ << 1 | (value >> bits & 1);
            if (++held_ == 8) flush();
        }
    }
    void value(const Coder& coder, unsigned run, int value) {
        unsigned size = 0;
        while (std::abs(value) >> size) ++size;
        const auto [code, length] = coder.code_of(static_cast<std::uint8_t>(run << 4 | size));
        put(code, length);
        put(static_cast<unsigned>(value < 0 ? value + (1 << size) - 1 : value), size);
    }
    void fill() {
        while (held_ != 0) put(1, 1);
    }

  private:
    void flush() {
        file_.push_back(static_cast<std::uint8_t>(now_));
        if ((now_ & 255) == 255) file_.push_back(0);
        held_ = 0;
    }
    Bytes& file_;
    unsigned now_ = 0, held_ = 0;
};

struct Layout {
    unsigned width, height, components, across, down, restart_interval;
};

/// A file, and the coefficients of its luma, row of blocks by row of blocks.
struct Written {
    Bytes file;
    std::vector<std::int16_t> luma;
    std::size_t blocks_across, blocks_down;
    std::array<std::int16_t, 64> quantisers;
};

void write_header(const Layout& layout, const Coder& dc, const Coder& ac, Written& made) {
    Bytes& file = made.file;
    file = {0xff, 0xd8, 0xff, 0xe0, 0, 16, 'J', 'F',  'I',  'F', 0,  1, 1,
            0,    0,    1,    0,    1, 0,  0,   0xff, 0xdb, 0,   67, 0};
    for (unsigned k = 0; k < 64; ++k) {
        made.quantisers[zigzag[k]] = static_cast<std::int16_t>(1 + k % 5);
        file.push_back(static_cast<std::uint8_t>(1 + k % 5));
    }
    const auto low = [](unsigned value) { return static_cast<std::uint8_t>(value); };
    file.insert(file.end(), {0xff, 0xc0, 0, low(8 + 3 * layout.components), 8, low(layout.height >> 8),
                             low(layout.height), low(layout.width >> 8), low(layout.width),
                             low(layout.components), 1, low(layout.across << 4 | layout.down), 0});
    for (unsigned c = 1; c < layout.components; ++c) file.insert(file.end(), {low(c + 1), 0x11, 0});
    dc.write(file, 0x00);
    ac.write(file, 0x10);
    if (layout.restart_interval > 0)
        file.insert(file.end(),
                    {0xff, 0xdd, 0, 4, low(layout.restart_interval >> 8), low(layout.restart_interval)});
    file.insert(file.end(), {0xff, 0xda, 0, low(6 + 2 * layout.components), low(layout.components)});
    for (unsigned c = 0; c < layout.components; ++c) file.insert(file.end(), {low(c + 1), 0x00});
    file.insert(file.end(), {0, 63, 0});
}

Written write_jpeg(const Layout& layout, std::uint64_t seed) {
    const Coder dc = Coder::of_dc(), ac = Coder::of_ac();
    Written made;
    write_header(layout, dc, ac, made);
    const unsigned across = layout.components == 1 ? 1 : layout.across,
                   down = layout.components == 1 ? 1 : layout.down;
    const std::size_t units_across = (layout.width + 8 * across - 1) / (8 * across);
    const std::size_t units_down = (layout.height + 8 * down - 1) / (8 * down);
    made.blocks_across = units_across * across;
    made.blocks_down = units_down * down;
    made.luma.assign(64 * made.blocks_across * made.blocks_down, 0);
    std::mt19937_64 engine(seed);
    std::array<int, 3> previous{};
    BitWriter bits(made.file);
    const auto write_block = [&](unsigned component, std::int16_t* block) {
        std::array<std::int16_t, 64> unseen{};
        if (block == nullptr) block = unseen.data();
        const int level = static_cast<int>(engine() % 1001) - 500;
        block[0] = static_cast<std::int16_t>(level);
        bits.value(dc, 0, level - previous[component]);
        previous[component] = level;
        const unsigned often =
            1 + static_cast<unsigned>(engine() % 20);  // full blocks, and nearly empty ones
        unsigned run = 0;
        for (unsigned k = 1; k < 64; ++k) {
            const int value = engine() % often == 0 ? static_cast<int>(engine() % 61) - 30 : 0;
            block[zigzag[k]] = static_cast<std::int16_t>(value);
            if (value == 0) {
                ++run;
                continue;
            }
            for (; run > 15; run -= 16) bits.value(ac, 15, 0);
            bits.value(ac, run, value);
            run = 0;
        }
        if (run > 0) bits.value(ac, 0, 0);
    };
    const std::size_t units = units_across * units_down;
    for (std::size_t unit = 0; unit < units; ++unit) {
        if (unit > 0 && layout.restart_interval > 0 && unit % layout.restart_interval == 0) {
            bits.fill();
            made.file.insert(
                made.file.end(),
                {0xff, static_cast<std::uint8_t>(0xd0 + (unit / layout.restart_interval - 1) % 8)});
            previous = {};
        }
        for (unsigned y = 0; y < down; ++y)
            for (unsigned x = 0; x < across; ++x)
                write_block(0,
                            made.luma.data() + 64 * ((unit / units_across * down + y) * made.blocks_across +
                                                     unit % units_across * across + x));
        for (unsigned c = 1; c < layout.components; ++c) write_block(c, nullptr);
    }
    bits.fill();
    made.file.insert(made.file.end(), {0xff, 0xd9});
    return made;
}

/// Of the bytes in a buffer exactly as long; false where nothing is read.
bool read_exactly(const std::uint8_t* data, std::size_t bytes, std::size_t least_side,
                  std::vector<std::uint8_t>& luma, LumaShape& shape) {
    const auto file = exact_buffer<std::uint8_t>(bytes);
    std::copy_n(data, bytes, file.get());
    shape = jpeg_luma_shape(file.get(), bytes, least_side);
    if (shape.scale < 2 || shape.width * shape.height > 1'000'000) return false;
    const auto out = exact_buffer<std::uint8_t>(shape.width * shape.height);
    const bool read = read_jpeg_luma(file.get(), bytes, shape.scale, out.get());
    luma.assign(out.get(), out.get() + shape.width * shape.height);
    return read;
}

std::vector<std::uint8_t> expected_luma(const Written& made, const LumaShape& shape) {
    const std::size_t size = 8 / shape.scale, stride = size * made.blocks_across;
    std::vector<std::uint8_t> all(stride * size * made.blocks_down), cut;
    for (std::size_t row = 0; row < made.blocks_down; ++row) {
        const std::int16_t* blocks = made.luma.data() + 64 * made.blocks_across * row;
        if (size > 1) {
            check(scalar.reduce_blocks(blocks, made.blocks_across, made.quantisers.data(), size,
                                       all.data() + row * size * stride),
                  "coefficients of the test are of 8-bit samples");
            continue;
        }
        for (std::size_t column = 0; column < made.blocks_across; ++column)
            all[row * stride + column] = static_cast<std::uint8_t>(
                std::clamp(((blocks[64 * column] * made.quantisers[0] + 4) >> 3) + 128, 0, 255));
    }
    for (std::size_t y = 0; y < shape.height; ++y)
        cut.insert(cut.end(), all.begin() + static_cast<std::ptrdiff_t>(y * stride),
                   all.begin() + static_cast<std::ptrdiff_t>(y * stride + shape.width));
    return cut;
}

const std::vector<Layout> layouts{{40, 40, 1, 1, 1, 0},  {33, 57, 1, 2, 2, 3}, {70, 41, 3, 2, 2, 0},
                                  {64, 33, 3, 2, 1, 1},  {17, 90, 3, 1, 2, 2}, {65, 65, 3, 1, 1, 5},
                                  {100, 24, 3, 4, 1, 0}, {8, 8, 3, 2, 2, 0},   {400, 200, 3, 2, 2, 7}};

void luma_is_that_of_the_coefficients() {
    for (std::size_t i = 0; i < layouts.size(); ++i) {
        const Layout& layout = layouts[i];
        const Written made = write_jpeg(layout, i);
        for (const unsigned scale : {2u, 4u, 8u}) {
            std::vector<std::uint8_t> luma;
            LumaShape shape;
            const std::size_t least_side = std::max(1u, std::min(layout.width, layout.height) / scale);
            const std::string what = "layout " + std::to_string(i) + ", scale " + std::to_string(scale);
            check(read_exactly(made.file.data(), made.file.size(), least_side, luma, shape), "read: " + what);
            check(shape.scale == scale && shape.is_plain, "shape: " + what);
            check(luma == expected_luma(made, shape), "pixels: " + what);
        }
    }
}

void files_that_are_cut_are_not_read() {
    for (std::size_t i = 0; i + 1 < layouts.size(); ++i) {
        const Written made = write_jpeg(layouts[i], 10 + i);
        std::vector<std::uint8_t> luma;
        LumaShape shape;
        for (std::size_t bytes = 0; bytes < made.file.size(); ++bytes)
            check(!read_exactly(made.file.data(), bytes, 1, luma, shape),
                  "layout " + std::to_string(i) + " cut to " + std::to_string(bytes));
    }
}

/// Whatever the bytes, nothing is read or written outside of the buffers; the sanitizers look.
void damaged_files_do_no_harm() {
    std::mt19937_64 engine(5);
    std::size_t read = 0;
    for (unsigned round = 0; round < 6000; ++round) {
        const Layout& layout = layouts[engine() % (layouts.size() - 1)];
        Bytes file = write_jpeg(layout, engine()).file;
        for (std::size_t change = 1 + engine() % 4; change > 0; --change) {
            const std::size_t at =
                engine() % (round % 2 == 0 ? file.size() : std::min<std::size_t>(file.size(), 420));
            if (round % 3 == 0)
                file[at] ^= static_cast<std::uint8_t>(1u << engine() % 8);
            else if (round % 3 == 1)
                file[at] = static_cast<std::uint8_t>(engine());
            else
                file.erase(file.begin() + static_cast<std::ptrdiff_t>(at));
        }
        std::vector<std::uint8_t> luma;
        LumaShape shape;
        read += read_exactly(file.data(), file.size(), 1 + engine() % 12, luma, shape);
    }
    check(read > 0 && read < 6000, "some changes are of values only");
    for (unsigned round = 0; round < 500; ++round) {
        Bytes file = write_jpeg(layouts[2], 1).file;
        for (std::size_t at = 400; at < file.size(); ++at) file[at] = static_cast<std::uint8_t>(engine());
        std::vector<std::uint8_t> luma;
        LumaShape shape;
        check(!read_exactly(file.data(), file.size(), 4, luma, shape), "noise is no scan");
        check(!read_exactly(file.data() + 300, file.size() - 300, 4, luma, shape), "nor a file");
    }
}

void blocks_equal_the_scalar_twin() {
    std::mt19937_64 engine(3);
    std::size_t fine = 0;
    for (unsigned round = 0; round < 400; ++round) {
        const std::size_t count = engine() % 6, size = round % 2 == 0 ? 4 : 2;
        const auto blocks = exact_buffer<std::int16_t>(64 * count),
                   quantisers = exact_buffer<std::int16_t>(64);
        // From quiet blocks to values that no 8-bit samples have.
        const auto most = static_cast<int>(std::uint64_t{1} << (2 + engine() % 10));
        const auto largest = std::uint64_t{1} << engine() % 8;
        for (std::size_t i = 0; i < 64 * count; ++i)
            blocks[i] = static_cast<std::int16_t>(
                static_cast<int>(engine() % (2 * static_cast<unsigned>(most))) - most);
        for (std::size_t k = 0; k < 64; ++k)
            quantisers[k] = static_cast<std::int16_t>(engine() % (2 * largest));
        const auto out = exact_buffer<std::uint8_t>(size * size * count),
                   other = exact_buffer<std::uint8_t>(size * size * count);
        const bool expected = scalar.reduce_blocks(blocks.get(), count, quantisers.get(), size, other.get());
        const bool found =
            active_kernels().reduce_blocks(blocks.get(), count, quantisers.get(), size, out.get());
        check(found == expected, "blocks of 8-bit samples, round " + std::to_string(round));
        fine += expected;
        check(!expected || std::memcmp(out.get(), other.get(), size * size * count) == 0,
              "pixels, round " + std::to_string(round));
    }
    check(fine > 50 && fine < 350, "blocks of both kinds are among them");
}

const Test tests[] = {
    {"phash jpeg: luma is that of the coefficients", luma_is_that_of_the_coefficients},
    {"phash jpeg: files that are cut are not read", files_that_are_cut_are_not_read},
    {"phash jpeg: damaged files do no harm", damaged_files_do_no_harm},
    {"phash jpeg: blocks equal the scalar twin", blocks_equal_the_scalar_twin},
};

}  // namespace
}  // namespace pycurate::tests
