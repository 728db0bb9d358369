#include "json.h"

#include <algorithm>
#include <charconv>
#include <stdexcept>

namespace cat2dog {
namespace {

constexpr int kDeepest = 64;

[[noreturn]] void refuse(std::string const& why) { throw std::invalid_argument(why); }

class Parser {
public:
    explicit Parser(std::string_view text) : text_(text) {}

    Json document() {
        Json value = any(0);
        blanks();
        if (at_ != text_.size()) refuse("there is text after the JSON");
        return value;
    }

private:
    Json any(int depth) {
        if (depth > kDeepest) refuse("it is nested too deeply");
        blanks();
        Json value;
        switch (peek()) {
            case '{': object(value, depth); break;
            case '[': list(value, depth); break;
            case '"':
                value.kind = Json::Kind::kText;
                value.text = string();
                break;
            case 't': word("true"), value.kind = Json::Kind::kBoolean, value.boolean = true; break;
            case 'f': word("false"), value.kind = Json::Kind::kBoolean; break;
            case 'n': word("null"); break;
            default: number(value);
        }
        return value;
    }

    void object(Json& value, int depth) {
        value.kind = Json::Kind::kObject;
        ++at_;
        blanks();
        if (take('}')) return;
        do {
            blanks();
            if (peek() != '"') refuse("a field has no name");
            std::string name = string();
            blanks();
            if (!take(':')) refuse("a field has no value");
            value.fields.emplace_back(std::move(name), any(depth + 1));
            blanks();
        } while (take(','));
        if (!take('}')) refuse("an object does not end");
        check_names(value);
    }

    // Sorted once: comparing each with all before it would take minutes for a megabyte of short names.
    static void check_names(Json const& value) {
        std::vector<std::string_view> names;
        for (auto const& field : value.fields) names.push_back(field.first);
        std::sort(names.begin(), names.end());
        if (std::adjacent_find(names.begin(), names.end()) != names.end()) refuse("it gives a field twice");
    }

    void list(Json& value, int depth) {
        value.kind = Json::Kind::kList;
        ++at_;
        blanks();
        if (take(']')) return;
        do {
            value.list.push_back(any(depth + 1));
            blanks();
        } while (take(','));
        if (!take(']')) refuse("a list does not end");
    }

    void number(Json& value) {
        std::size_t const start = at_;
        take('-');
        if (!take('0')) digits();
        if (take('.')) digits();
        if (peek() == 'e' || peek() == 'E') {
            ++at_;
            if (!take('+')) take('-');
            digits();
        }
        value.kind = Json::Kind::kNumber;
        value.text = text_.substr(start, at_ - start);
    }

    void digits() {
        std::size_t const start = at_;
        while (peek() >= '0' && peek() <= '9') ++at_;
        if (at_ == start) refuse("a value is no JSON");
    }

    std::string string() {
        std::string made;
        ++at_;
        for (;;) {
            if (at_ >= text_.size()) refuse("a text does not end");
            char const c = text_[at_++];
            if (c == '"') return made;
            if (static_cast<unsigned char>(c) < 32) refuse("a text has a control character");
            if (c == '\\') {
                escaped(made);
            } else {
                made += c;
            }
        }
    }

    void escaped(std::string& made) {
        constexpr std::string_view kFrom = "\"\\/bfnrt";
        constexpr std::string_view kTo = "\"\\/\b\f\n\r\t";
        char const c = peek();
        if (std::size_t const which = kFrom.find(c); which != std::string_view::npos && at_ < text_.size()) {
            ++at_;
            made += kTo[which];
            return;
        }
        if (c != 'u') refuse("a text has an unknown escape");
        ++at_;
        unsigned point = hex();
        if (point >= 0xD800 && point < 0xDC00) {
            if (!take('\\') || !take('u')) refuse("a text has half a character");
            unsigned const low = hex();
            if (low < 0xDC00 || low > 0xDFFF) refuse("a text has half a character");
            point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
        } else if (point >= 0xDC00 && point < 0xE000) {
            refuse("a text has half a character");
        }
        utf8(made, point);
    }

    static void utf8(std::string& made, unsigned point) {
        if (point < 0x80) {
            made += static_cast<char>(point);
            return;
        }
        int const more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
        constexpr unsigned kFirst[] = {0, 0xC0, 0xE0, 0xF0};
        made += static_cast<char>(kFirst[more] | point >> (6 * more));
        for (int i = more - 1; i >= 0; --i) made += static_cast<char>(0x80 | (point >> (6 * i) & 0x3F));
    }

    unsigned hex() {
        unsigned value = 0;
        if (text_.size() - at_ < 4) refuse("a text does not end");
        auto const [end, error] = std::from_chars(text_.data() + at_, text_.data() + at_ + 4, value, 16);
        if (error != std::errc() || end != text_.data() + at_ + 4) refuse("a text has an unknown escape");
        at_ += 4;
        return value;
    }

    void word(std::string_view expected) {
        if (text_.substr(at_, expected.size()) != expected) refuse("a value is no JSON");
        at_ += expected.size();
    }

    void blanks() {
        while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) ++at_;
    }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    bool take(char c) {
        if (at_ >= text_.size() || text_[at_] != c) return false;
        ++at_;
        return true;
    }

    std::string_view text_;
    std::size_t at_ = 0;
};

}  // namespace

Json Json::parse(std::string_view text) { return Parser(text).document(); }

Json const* Json::find(std::string const& name) const {
    for (auto const& [own, value] : fields) {
        if (own == name) return &value;
    }
    return nullptr;
}

Json const& Json::at(std::string const& name) const {
    Json const* const found = find(name);
    if (found == nullptr) refuse("it lacks '" + name + "'");
    return *found;
}

std::string const& Json::as_text() const {
    if (kind != Kind::kText) refuse("a value is no text");
    return text;
}

std::int64_t Json::as_integer() const {
    std::int64_t value = 0;
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (kind != Kind::kNumber || error != std::errc() || end != text.data() + text.size()) refuse("a value is no whole number");
    return value;
}

std::vector<Json> const& Json::as_list() const {
    if (kind != Kind::kList) refuse("a value is no list");
    return list;
}

}  // namespace cat2dog
