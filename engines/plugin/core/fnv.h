// FNV-1a over 8-byte little-endian words with a fold after each, the last one padded with zeros; as fnv1a in engines/kernels/launch.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cat2dog {

inline std::uint64_t fnv1a(unsigned char const* data, std::size_t length) noexcept {
    std::uint64_t hash = 0xCBF29CE484222325u;
    for (std::size_t start = 0; start < length; start += 8) {
        std::uint64_t word = 0;
        for (std::size_t i = 0; i < 8 && start + i < length; ++i) word |= std::uint64_t{data[start + i]} << (8 * i);
        hash = (hash ^ word) * 0x100000001B3u;
        // Brings high bits down: the multiplication alone moves them up and out, and two flipped signs would cancel.
        hash ^= hash >> 32;
    }
    return hash;
}

}  // namespace cat2dog
