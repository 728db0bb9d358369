// JSON (RFC 8259), read strictly: no trailing text, no field twice, nesting bounded. Enough for manifests.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cat2dog {

class Json {
public:
    enum class Kind { kNull, kBoolean, kNumber, kText, kList, kObject };

    // Raises std::invalid_argument, in a few words, for anything else.
    static Json parse(std::string_view text);

    Kind kind = Kind::kNull;
    bool boolean = false;
    std::string text;  // of a text, UTF-8; of a number as it is written
    std::vector<Json> list;
    std::vector<std::pair<std::string, Json>> fields;

    // Each raises std::invalid_argument where the value is of another kind; `at` where the field is missing.
    Json const& at(std::string const& name) const;
    Json const* find(std::string const& name) const;
    std::string const& as_text() const;
    std::int64_t as_integer() const;
    std::vector<Json> const& as_list() const;
    bool is_null() const { return kind == Kind::kNull; }
};

}  // namespace cat2dog
