#include "strict.h"

#include <algorithm>
#include <stdexcept>

#include "canonical.h"

namespace cat2dog::strict {
namespace {

constexpr std::size_t kLongestText = 4096;
constexpr std::size_t kLongestList = 10'000;
// Python compares whole numbers of any length with 1e300; those of more digits are refused here without looking.
constexpr std::size_t kMostDigits = 300;

[[noreturn]] void refuse(std::string const& where, std::string const& what) { throw std::invalid_argument(where + what); }

Json of_number(std::string text) {
    Json made;
    made.kind = Json::Kind::kNumber;
    made.text = std::move(text);
    return made;
}

bool is_whole(Json const& value) {
    return value.kind == Json::Kind::kNumber && value.text.find_first_of(".eE") == std::string::npos;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// A name goes into a message shortened, and as ASCII: half a character of UTF-8, or a line separator, has no place there.
std::string named(std::string const& where, std::string const& name) {
    std::string shown = name.substr(0, 40);
    std::replace_if(shown.begin(), shown.end(), [](char c) { return c < 0x20 || c > 0x7E; }, '?');
    return where + "." + shown;
}

}  // namespace

Json text(Json const& value, std::string const& where) {
    if (value.kind != Json::Kind::kText) refuse(where, " is no text");
    if (value.text.size() > 4 * kLongestText) refuse(where, " is a text that is too long");
    std::u32string const points = code_points(value.text);
    if (points.size() > kLongestText) refuse(where, " is a text that is too long");
    bool const control = std::any_of(points.begin(), points.end(), [](char32_t c) { return c < 0x20 || (c >= 0x7F && c < 0xA0); });
    if (control) refuse(where, " has a control character");
    return value;
}

Json integer(Json const& value, std::string const& where) {
    if (!is_whole(value)) refuse(where, " is no whole number");
    std::int64_t const number = value.as_integer();
    if (number < 0) refuse(where, " is out of range, expected 0 to 2**63-1");
    return of_number(std::to_string(number));  // "-0" is 0
}

Json dimension(Json const& value, std::string const& where) {
    return is_whole(value) && value.text == "-1" ? value : integer(value, where);
}

Json number(Json const& value, std::string const& where) {
    if (value.kind != Json::Kind::kNumber) refuse(where, " is no number");
    // A whole number is exact in Python before it becomes a float: "-0" is 0.
    return of_number(is_whole(value) && value.text == "-0" ? "0.0" : float_text(as_double(value)));
}

Json score(Json const& value, std::string const& where) {
    bool const infinite = value.kind == Json::Kind::kText && (value.text == "inf" || value.text == "-inf");
    return infinite ? value : number(value, where);
}

Json scalar(Json const& value, std::string const& where) {
    if (value.kind == Json::Kind::kNull || value.kind == Json::Kind::kBoolean) return value;
    if (value.kind == Json::Kind::kText) return text(value, where);
    Json const as_float = number(value, where);
    if (!is_whole(value)) return as_float;
    if (value.text.size() > kMostDigits) refuse(where, " is out of range");
    return value.text == "-0" ? of_number("0") : value;
}

Json hash(Json const& value, std::string const& where) {
    std::string const found = text(value, where).text;
    bool const hex = std::all_of(found.begin(), found.end(), [](char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); });
    if (found.size() != 64 || !hex) refuse(where, " is no hash, expected 64 hex digits");
    return value;
}

Json capability(Json const& value, std::string const& where) {
    std::string const found = text(value, where).text;
    std::size_t const dot = found.find('.');
    bool fits = (dot == 1 || dot == 2) && found.size() == dot + 2;
    for (std::size_t i = 0; fits && i < found.size(); ++i) fits = i == dot || is_digit(found[i]);
    if (!fits) refuse(where, " is no compute capability such as \"9.0\"");
    return value;
}

Json batch(Json const& value, std::string const& where) {
    Json const sizes = list(integer)(value, where);
    bool fits = sizes.list.size() == 3;
    for (std::size_t i = 0; fits && i < 3; ++i) {
        fits = sizes.list[i].as_integer() >= (i == 0 ? 1 : sizes.list[i - 1].as_integer());
    }
    if (!fits) refuse(where, " is no [min, opt, max] in rising order from 1");
    return sizes;
}

Json engine_name(Json const& value, std::string const& where) {
    constexpr std::string_view kEnd = ".engine";
    std::string const found = text(value, where).text;
    bool fits = found.size() > kEnd.size() && found.size() <= 246 + kEnd.size() && found.front() != '.' &&
                found.compare(found.size() - kEnd.size(), kEnd.size(), kEnd) == 0;
    for (char const c : found) {
        fits = fits && (is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' || c == '+' || c == '-');
    }
    if (!fits) refuse(where, " is no plain file name ending in .engine");
    return value;
}

Reader one_of(std::initializer_list<char const*> allowed) {
    return [all = std::vector<std::string>(allowed.begin(), allowed.end())](Json const& value, std::string const& where) {
        if (std::find(all.begin(), all.end(), text(value, where).text) == all.end()) refuse(where, " is of an unknown kind");
        return value;
    };
}

Reader or_null(Reader read) {
    return [read](Json const& value, std::string const& where) { return value.is_null() ? value : read(value, where); };
}

Reader list(Reader read) {
    return [read](Json const& value, std::string const& where) {
        if (value.kind != Json::Kind::kList) refuse(where, " is no list");
        if (value.list.size() > kLongestList) refuse(where, " is a list that is too long");
        Json made;
        made.kind = Json::Kind::kList;
        for (Json const& each : value.list) made.list.push_back(read(each, where + "[" + std::to_string(made.list.size()) + "]"));
        return made;
    };
}

Reader mapping(Reader read) {
    return [read](Json const& value, std::string const& where) {
        if (value.kind != Json::Kind::kObject) refuse(where, " is no object");
        Json made;
        made.kind = Json::Kind::kObject;
        for (auto const& [name, entry] : value.fields) {
            Json as_text;
            as_text.kind = Json::Kind::kText;
            as_text.text = name;
            text(as_text, "a name in " + where);
            made.fields.emplace_back(name, read(entry, named(where, name)));
        }
        return made;
    };
}

Reader object(std::initializer_list<std::pair<char const*, Reader>> fields) {
    return [all = std::vector<std::pair<std::string, Reader>>(fields.begin(), fields.end())](Json const& value, std::string const& where) {
        if (value.kind != Json::Kind::kObject) refuse(where, " is no object");
        Json made;
        made.kind = Json::Kind::kObject;
        for (auto const& [name, read] : all) {
            Json const* const found = value.find(name);
            if (found == nullptr) refuse(where, " lacks '" + name + "'");
            made.fields.emplace_back(name, read(*found, named(where, name)));
        }
        // No name is there twice, so that more fields than these are others.
        if (value.fields.size() != all.size()) refuse(where, " has an unknown field");
        return made;
    };
}

}  // namespace cat2dog::strict
