// JSON as Python's json.dumps(sort_keys=True, separators=(",", ":"), allow_nan=False) writes it, byte for byte: what
// is hashed into an engine's key and what is signed.
#pragma once

#include <string>

#include "json.h"

namespace cat2dog {

// ASCII; names in the order of their code points; a number as its `text` says. Raises std::invalid_argument for a text
// that is not UTF-8.
std::string canonical(Json const& value);

// Of a finite number: float.__repr__, the fewest digits that bring it back: "0.1", "1e-05", "1e+16", "30.0".
std::string float_text(double value);

// The number that a JSON number stands for, rounded correctly. Raises std::invalid_argument unless it is under 1e300,
// as runtime/manifest.py asks, and for one so small that it would be another.
double as_double(Json const& value);

// The code points of UTF-8. Raises std::invalid_argument for anything else: overlong, cut off, a surrogate.
std::u32string code_points(std::string const& text);

}  // namespace cat2dog
