// SHA-256 (FIPS 180-4), of what the manifests name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace cat2dog {

// 64 hex digits.
std::string sha256(std::uint8_t const* data, std::size_t size);

}  // namespace cat2dog
