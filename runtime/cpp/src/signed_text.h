// What a signature of an engine is of.
#pragma once

#include <string>

#include "json.h"

namespace cat2dog {

// As `signed_text` of runtime/signing.py, byte for byte: a manifest as canonical JSON, without what its gate measured.
// Raises std::invalid_argument for a manifest that runtime/manifest.py would refuse.
std::string signed_text(Json const& manifest);

}  // namespace cat2dog
