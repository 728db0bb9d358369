#include "canonical.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <stdexcept>

namespace cat2dog {
namespace {

constexpr char kHex[] = "0123456789abcdef";

void escape(std::string& made, std::uint32_t unit) {
    made += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) made += kHex[unit >> shift & 15];
}

void quote(std::string& made, std::string const& text) {
    constexpr std::u32string_view kPlain = U"\"\\\n\r\t\f\b";
    constexpr std::string_view kShort = "\"\\nrtfb";
    made += '"';
    for (char32_t const point : code_points(text)) {
        if (std::size_t const which = kPlain.find(point); which != std::u32string_view::npos) {
            made += '\\';
            made += kShort[which];
        } else if (point >= 0x20 && point < 0x7F) {
            made += static_cast<char>(point);
        } else if (point < 0x10000) {
            escape(made, point);
        } else {  // two halves of UTF-16
            escape(made, 0xD800 + ((point - 0x10000) >> 10));
            escape(made, 0xDC00 + ((point - 0x10000) & 0x3FF));
        }
    }
    made += '"';
}

void write(std::string& made, Json const& value);

void write_object(std::string& made, Json const& value) {
    std::vector<std::pair<std::string, Json> const*> sorted;
    for (auto const& field : value.fields) sorted.push_back(&field);
    // Bytes of UTF-8 stand in the order of their code points.
    std::sort(sorted.begin(), sorted.end(), [](auto const* a, auto const* b) { return a->first < b->first; });
    made += '{';
    for (auto const* field : sorted) {
        if (made.back() != '{') made += ',';
        quote(made, field->first);
        made += ':';
        write(made, field->second);
    }
    made += '}';
}

void write_list(std::string& made, Json const& value) {
    made += '[';
    for (Json const& each : value.list) {
        if (&each != value.list.data()) made += ',';
        write(made, each);
    }
    made += ']';
}

void write(std::string& made, Json const& value) {
    switch (value.kind) {
        case Json::Kind::kNull: made += "null"; break;
        case Json::Kind::kBoolean: made += value.boolean ? "true" : "false"; break;
        case Json::Kind::kNumber: made += value.text; break;
        case Json::Kind::kText: quote(made, value.text); break;
        case Json::Kind::kList: write_list(made, value); break;
        case Json::Kind::kObject: write_object(made, value); break;
    }
}

}  // namespace

std::string canonical(Json const& value) {
    std::string made;
    write(made, value);
    return made;
}

std::string float_text(double value) {
    char text[40];
    // "-d.ddde-05": Python's form wherever it writes an exponent, which is never of less than two digits in either.
    char* const end = std::to_chars(text, text + sizeof text, value, std::chars_format::scientific).ptr;
    std::string_view const written(text, static_cast<std::size_t>(end - text));
    std::size_t const mark = written.find('e');
    int exponent = 0;
    char const* const digits_of_it = written.data() + mark + (written[mark + 1] == '+' ? 2 : 1);
    std::from_chars(digits_of_it, end, exponent);
    if (exponent < -4 || exponent >= 16) return std::string(written);
    std::string const sign = written.front() == '-' ? "-" : "";
    std::string digits;
    for (char const c : written.substr(0, mark)) {
        if (c >= '0' && c <= '9') digits += c;
    }
    if (exponent < 0) return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
    std::size_t const whole = static_cast<std::size_t>(exponent) + 1;
    if (digits.size() <= whole) return sign + digits + std::string(whole - digits.size(), '0') + ".0";
    return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

double as_double(Json const& value) {
    double number = 0;
    char const* const end = value.text.data() + value.text.size();
    auto const [stopped, error] = std::from_chars(value.text.data(), end, number);
    if (value.kind != Json::Kind::kNumber || error != std::errc() || stopped != end || !(std::abs(number) < 1e300)) {
        throw std::invalid_argument("a number is none, or out of range");
    }
    return number;
}

std::u32string code_points(std::string const& text) {
    std::u32string made;
    for (std::size_t at = 0; at < text.size();) {
        auto const byte = [&](std::size_t i) -> std::uint32_t { return static_cast<unsigned char>(text[i]); };
        std::uint32_t const first = byte(at);
        std::size_t const more = first < 0x80 ? 0 : first < 0xC0 ? 4 : first < 0xE0 ? 1 : first < 0xF0 ? 2 : first < 0xF8 ? 3 : 4;
        constexpr std::uint32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
        if (more == 4 || text.size() - at <= more) throw std::invalid_argument("a text is not valid Unicode");
        std::uint32_t point = more == 0 ? first : first & (0x3FU >> more);
        for (std::size_t i = 1; i <= more; ++i) {
            if ((byte(at + i) & 0xC0) != 0x80) throw std::invalid_argument("a text is not valid Unicode");
            point = point << 6 | (byte(at + i) & 0x3F);
        }
        if (point < kLeast[more] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000)) {
            throw std::invalid_argument("a text is not valid Unicode");
        }
        made += point;
        at += more + 1;
    }
    return made;
}

}  // namespace cat2dog
