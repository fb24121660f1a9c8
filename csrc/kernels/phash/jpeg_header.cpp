#include "kernels/phash/jpeg_header.h"

#include <algorithm>
#include <cstring>

namespace pycurate::phash {
namespace {

enum Marker : std::uint8_t {
    frame_baseline = 0xc0,
    huffman_tables = 0xc4,
    image_begins = 0xd8,
    scan_begins = 0xda,
    quantisers = 0xdb,
    restart_interval = 0xdd,
    application_0 = 0xe0,
    application_14 = 0xee,
    application_15 = 0xef,
    comment = 0xfe,
};

/// A segment's bytes; reading beyond them gives 0 and is noted.
class Bytes {
  public:
    Bytes(const std::uint8_t* at, std::size_t left) : at_(at), left_(left) {}

    unsigned byte() {
        if (left_ == 0) {
            short_ = true;
            return 0;
        }
        --left_;
        return *at_++;
    }
    unsigned word() {
        const unsigned high = byte();
        return high << 8 | byte();
    }
    Bytes take(std::size_t count) {
        if (count > left_) short_ = true, count = left_;
        const Bytes taken(at_, count);
        at_ += count;
        left_ -= count;
        return taken;
    }
    bool begins_with(const char* text, std::size_t length) const {
        return left_ >= length && std::memcmp(at_, text, length) == 0;
    }
    const std::uint8_t* at() const { return at_; }
    std::size_t left() const { return left_; }
    bool read_beyond() const { return short_; }
    bool whole() const { return !short_ && left_ == 0; }

  private:
    const std::uint8_t* at_;
    std::size_t left_;
    bool short_ = false;
};

bool read_quantisers(Bytes segment, JpegHeader& header) {
    while (segment.left() > 0) {
        const unsigned which = segment.byte();  // its upper half: 1 for values of 16 bits
        if (which > 3) return false;
        for (const std::uint8_t place : zigzag)
            header.quantisers[which][place] = static_cast<std::int16_t>(segment.byte());
        header.has_quantiser[which] = true;
    }
    return segment.whole();
}

bool read_huffman_tables(Bytes segment, JpegHeader& header) {
    while (segment.left() > 0) {
        const unsigned which = segment.byte(), table = which & 15, is_ac = which >> 4;
        if (table > 3 || is_ac > 1) return false;
        HuffmanSpec spec;
        std::size_t symbols = 0;
        std::uint32_t code = 0;
        for (unsigned length = 1; length <= 16; ++length) {
            spec.counts[length] = static_cast<std::uint8_t>(segment.byte());
            symbols += spec.counts[length];
            code = 2 * code + spec.counts[length];
            if (code >= std::uint32_t{1} << length) return false;  // no code may be all ones
        }
        if (symbols > spec.symbols.size()) return false;
        for (std::size_t i = 0; i < symbols; ++i) {
            spec.symbols[i] = static_cast<std::uint8_t>(segment.byte());
            if (!is_ac && spec.symbols[i] > most_dc_bits) return false;
        }
        spec.defined = true;
        (is_ac ? header.ac : header.dc)[table] = spec;
    }
    return segment.whole();
}

bool read_frame(Bytes segment, JpegHeader& header) {
    if (header.components != 0 || segment.byte() != 8) return false;
    header.height = segment.word();
    header.width = segment.word();
    header.components = segment.byte();
    if (header.width == 0 || header.height == 0 || (header.components != 1 && header.components != 3))
        return false;
    for (unsigned c = 0; c < header.components; ++c) {
        Component& part = header.component[c];
        part.id = segment.byte();
        const unsigned sampling = segment.byte();
        part.across = sampling >> 4;
        part.down = sampling & 15;
        part.quantiser = segment.byte();
        const Component& luma = header.component[0];
        if (part.across < 1 || part.across > 4 || part.down < 1 || part.down > 4 || part.quantiser > 3 ||
            luma.across % part.across != 0 || luma.down % part.down != 0)
            return false;
        for (unsigned other = 0; other < c; ++other)
            if (header.component[other].id == part.id) return false;
    }
    if (header.components == 1) header.component[0].across = header.component[0].down = 1;
    unsigned blocks = 0;
    for (unsigned c = 0; c < header.components; ++c)
        blocks += header.component[c].across * header.component[c].down;
    return segment.whole() && blocks <= 10;
}

bool read_scan_header(Bytes segment, JpegHeader& header) {
    if (header.components == 0 || segment.byte() != header.components) return false;
    for (unsigned c = 0; c < header.components; ++c) {
        Component& part = header.component[c];
        if (segment.byte() != part.id) return false;
        const unsigned tables = segment.byte();
        part.dc = tables >> 4;
        part.ac = tables & 15;
        if (part.dc > 3 || part.ac > 3 || !header.dc[part.dc].defined || !header.ac[part.ac].defined ||
            !header.has_quantiser[part.quantiser])
            return false;
    }
    const bool all_coefficients = segment.byte() == 0 && segment.byte() == 63 && segment.byte() == 0;
    return all_coefficients && segment.whole();
}

/// Whether three components are Y, Cb and Cr by every rule at once; libjpeg has an order of precedence.
class ColourNotes {
  public:
    /// False: the segment is one that readers take in different ways.
    bool note(unsigned marker, const Bytes& segment) {
        if (marker == application_0 && segment.begins_with("JFIF", 4)) {
            is_jfif_ = true;
            return segment.begins_with("JFIF\0", 5) && segment.left() >= 14;
        }
        if (marker == application_14 && segment.begins_with("Adobe", 5)) {
            if (segment.left() < 12) return false;
            is_adobe_ = true;
            transform_ = segment.at()[11];
        }
        return true;
    }
    bool is_luma_first(const JpegHeader& header) const {
        if (header.components == 1) return true;
        if (is_adobe_) return transform_ == 1;
        const auto& part = header.component;
        return is_jfif_ || (part[0].id == 1 && part[1].id == 2 && part[2].id == 3);
    }

  private:
    bool is_jfif_ = false, is_adobe_ = false;
    unsigned transform_ = 0;
};

}  // namespace

bool read_jpeg_header(const std::uint8_t* data, std::size_t bytes, JpegHeader& header) {
    Bytes file(data, bytes);
    if (file.byte() != 0xff || file.byte() != image_begins) return false;
    ColourNotes colours;
    while (!file.read_beyond()) {
        if (file.byte() != 0xff) return false;
        const unsigned marker = file.byte(), length = file.word();
        if (length < 2) return false;
        const Bytes segment = file.take(length - 2);
        if (file.read_beyond()) return false;
        bool fine;
        if (marker == quantisers)
            fine = read_quantisers(segment, header);
        else if (marker == huffman_tables)
            fine = read_huffman_tables(segment, header);
        else if (marker == frame_baseline)
            fine = read_frame(segment, header);
        else if (marker == restart_interval) {
            Bytes interval = segment;
            header.restart_interval = interval.word();
            fine = interval.whole();
        } else if (marker == scan_begins) {
            if (!read_scan_header(segment, header)) return false;
            header.scan = file.at();
            header.end = file.at() + file.left();
            return colours.is_luma_first(header);
        } else {
            header.is_plain = header.is_plain && (marker == comment || marker == application_0);
            fine = marker == comment ||
                   (marker >= application_0 && marker <= application_15 && colours.note(marker, segment));
        }
        if (!fine) return false;
    }
    return false;
}

}  // namespace pycurate::phash
