// Signed engines: who vouches for a plan, which is code that runs on the GPU. As runtime/signing.py, which signs.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "files.h"
#include "json.h"

namespace cat2dog {

constexpr char const* kSignedByVariable = "CAT2DOG_SIGNED_BY";

// Nothing where `keys` is none. Otherwise `keys` is a PEM file or a folder of *.pub, and the engine of this manifest
// has to be signed by one of them. Raises Error: foreign where it is not, bad input where `keys` are no keys or the
// runner was built without OpenSSL. Whoever loads the plan has to compare its hash with the manifest's.
void check_policy(std::string const& engine, Json const& manifest, std::optional<std::string> const& keys);

// The key's name (64 hex digits) and the signature in a `.sig` file. Raises std::invalid_argument for anything else.
std::pair<std::string, Bytes> read_signature(std::string_view data);

}  // namespace cat2dog
