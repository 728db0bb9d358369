// Readers of JSON that take a value of the expected type alone, as runtime/manifest.py reads. What they give is the
// value as Python would hold it: a number that has to be a float is written as one ("30" as "30.0").
#pragma once

#include <functional>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "json.h"

namespace cat2dog::strict {

// A value and where it stands ("manifest.key.batch"). Raises std::invalid_argument for anything else.
using Reader = std::function<Json(Json const&, std::string const& where)>;

Json text(Json const& value, std::string const& where);       // at most 4096 characters, no control characters
Json integer(Json const& value, std::string const& where);    // 0 to 2^63 - 1
Json dimension(Json const& value, std::string const& where);  // or -1
Json number(Json const& value, std::string const& where);     // as a float
Json score(Json const& value, std::string const& where);      // or "inf", "-inf"
Json scalar(Json const& value, std::string const& where);     // null, boolean, text, number
Json hash(Json const& value, std::string const& where);       // 64 hex digits
Json capability(Json const& value, std::string const& where); // "9.0"
Json batch(Json const& value, std::string const& where);      // [min, opt, max]
Json engine_name(Json const& value, std::string const& where);

Reader one_of(std::initializer_list<char const*> allowed);
Reader or_null(Reader read);
Reader list(Reader read);
Reader mapping(Reader read);
// Every field, and no other.
Reader object(std::initializer_list<std::pair<char const*, Reader>> fields);

}  // namespace cat2dog::strict
