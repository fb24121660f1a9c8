#include <algorithm>
#include <cstring>
#include <optional>

#include "kernels/phash/jpeg.h"
#include "kernels/phash/jpeg_scan.h"
#include "kernels/phash/phash.h"

namespace pycurate::phash {
namespace {

constexpr std::uint8_t restart_0 = 0xd0, image_ends = 0xd9;
constexpr unsigned dc_look_ahead = 8;
constexpr std::int32_t most_dc = 2047;  // a coefficient of 8-bit samples, whatever its quantiser

std::size_t divided_up(std::size_t a, std::size_t b) noexcept { return (a + b - 1) / b; }

/// The luma of one scan, written as rows of minimum coded units come to an end.
class LumaScan {
  public:
    LumaScan(const JpegHeader& header, unsigned scale, std::uint8_t* luma)
        : header_(header),
          size_(8 / scale),
          width_(divided_up(header.width, scale)),
          height_(divided_up(header.height, scale)),
          units_across_(divided_up(header.width, 8 * header.component[0].across)),
          units_down_(divided_up(header.height, 8 * header.component[0].down)),
          blocks_across_(units_across_ * header.component[0].across),
          luma_(luma),
          strip_(size_ * size_ * blocks_across_) {
        for (unsigned c = 0; c < header.components; ++c) {
            const Component& part = header.component[c];
            if (!dc_[part.dc]) dc_[part.dc].emplace(header.dc[part.dc], false, dc_look_ahead);
            if (!ac_[part.ac]) ac_[part.ac].emplace(header.ac[part.ac]);
        }
        coefficients_.resize(block_size * blocks_across_ * (size_ > 1 ? header.component[0].down : 0));
    }

    bool read() {
        ScanBytes bytes(header_.scan, header_.end);
        std::vector<std::uint8_t> stretch;
        stretch.reserve(static_cast<std::size_t>(header_.end - header_.scan) + BitReader::padding);
        const std::size_t units = units_across_ * units_down_;
        const std::size_t interval = header_.restart_interval == 0 ? units : header_.restart_interval;
        for (std::size_t unit = 0, part = 0; unit < units; ++part) {
            std::uint8_t marker;
            if (!bytes.next(stretch, marker)) return false;
            BitReader reader(stretch.data(), stretch.size() - BitReader::padding);
            previous_.fill(0);
            const std::size_t stop = std::min(units, unit + interval);
            while (unit < stop) {
                const std::size_t row_ends = std::min(stop, (unit / units_across_ + 1) * units_across_);
                if (!read_units(reader, unit, row_ends) || reader.read_beyond()) return false;
                unit = row_ends;
                if (unit % units_across_ == 0 && !write_row(unit / units_across_ - 1)) return false;
            }
            if (!reader.at_end() || marker != (unit == units ? image_ends : restart_0 + part % 8))
                return false;
        }
        return true;
    }

  private:
    bool read_units(BitReader& shared, std::size_t begin, std::size_t end) {
        BitReader reader = shared;  // in registers
        const Component& luma = header_.component[0];
        for (std::size_t unit = begin; unit < end; ++unit) {
            const std::size_t column = unit % units_across_ * luma.across;
            for (unsigned y = 0; y < luma.down; ++y)
                for (unsigned x = 0; x < luma.across; ++x)
                    if (!read_luma_block(reader, unit / units_across_ * luma.down + y, y, column + x))
                        return false;
            for (unsigned c = 1; c < header_.components; ++c)
                for (unsigned block = 0; block < header_.component[c].across * header_.component[c].down;
                     ++block)
                    if (!read_dc(reader, c) || !ac_[header_.component[c].ac]->read<false>(reader, nullptr))
                        return false;
        }
        shared = reader;
        return true;
    }

    /// `row`: of blocks in the picture; `y`: in the row of units.
    bool read_luma_block(BitReader& reader, std::size_t row, unsigned y, std::size_t column) {
        if (!read_dc(reader, 0)) return false;
        if (size_ == 1) {
            if (row < height_ && column < width_) {
                const std::int32_t quantiser = header_.quantisers[header_.component[0].quantiser][0];
                const std::int32_t level = (previous_[0] * quantiser + 4) >> 3;
                if (level < -512 || level > 511) return false;
                luma_[row * width_ + column] = static_cast<std::uint8_t>(std::clamp(level + 128, 0, 255));
            }
            return ac_[header_.component[0].ac]->read<false>(reader, nullptr);
        }
        std::int16_t* block = coefficients_.data() + block_size * (y * blocks_across_ + column);
        block[0] = static_cast<std::int16_t>(previous_[0]);
        return ac_[header_.component[0].ac]->read<true>(reader, block);
    }

    bool read_dc(BitReader& reader, unsigned c) {
        reader.refill();
        const Symbol symbol = dc_[header_.component[c].dc]->next(reader.bits());
        reader.drop(symbol.bits);
        previous_[c] += symbol.value;
        return symbol.bits != 0 && previous_[c] >= -most_dc - 1 && previous_[c] <= most_dc;
    }

    bool write_row(std::size_t row) {
        if (size_ == 1) return true;
        const auto& quantiser = header_.quantisers[header_.component[0].quantiser];
        const unsigned down = header_.component[0].down;
        for (unsigned y = 0; y < down; ++y) {
            const std::size_t first = (row * down + y) * size_;
            if (first >= height_) break;
            const std::int16_t* blocks = coefficients_.data() + block_size * y * blocks_across_;
            if (!active_kernels().reduce_blocks(blocks, blocks_across_, quantiser.data(), size_,
                                                strip_.data()))
                return false;
            for (std::size_t line = 0; line < std::min(size_, height_ - first); ++line)
                std::copy_n(strip_.data() + line * size_ * blocks_across_, width_,
                            luma_ + (first + line) * width_);
        }
        std::fill(coefficients_.begin(), coefficients_.end(), std::int16_t{0});
        return true;
    }

    const JpegHeader& header_;
    std::size_t size_, width_, height_, units_across_, units_down_, blocks_across_;
    std::uint8_t* luma_;
    std::vector<std::uint8_t> strip_;
    std::vector<std::int16_t> coefficients_;
    std::array<std::optional<HuffmanTable>, 4> dc_;
    std::array<std::optional<CoefficientTable>, 4> ac_;
    std::array<std::int32_t, 3> previous_{};
};

}  // namespace

LumaShape jpeg_luma_shape(const std::uint8_t* data, std::size_t bytes, std::size_t least_side) noexcept {
    JpegHeader header;
    if (least_side == 0 || !read_jpeg_header(data, bytes, header)) return {};
    const std::size_t kept = std::min(header.width, header.height) / least_side;
    const unsigned scale = kept >= 8 ? 8 : kept >= 4 ? 4 : kept >= 2 ? 2 : 1;
    return {scale, divided_up(header.width, scale), divided_up(header.height, scale), header.is_plain};
}

bool read_jpeg_luma(const std::uint8_t* data, std::size_t bytes, unsigned scale, std::uint8_t* luma) {
    JpegHeader header;
    return read_jpeg_header(data, bytes, header) && LumaScan(header, scale, luma).read();
}

}  // namespace pycurate::phash
