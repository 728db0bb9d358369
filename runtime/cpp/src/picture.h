// JPEG → crop, byte for byte as zoo/resnet50/PIXELS.md says.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "files.h"

namespace cat2dog {

constexpr int kCrop = 100;
constexpr int kLeastSide = 67;
constexpr std::size_t kMostJpegBytes = std::size_t{64} << 20;
constexpr std::uint64_t kMostPixels = 50'000'000;

// RGB, row by row.
struct Picture {
    int height = 0;
    int width = 0;
    Bytes pixels;
};

using Crop = std::array<std::uint8_t, kCrop * kCrop * 3>;

struct Place {
    int top = 0;
    int left = 0;
};

// Pixels as they are stored, by libjpeg-turbo. Raises Error (bad input), which begins with `name`, for anything else, for
// a damaged file, and for more than kMostPixels.
Picture decode_jpeg(Bytes const& data, std::string const& name);

// The `number`-th draw from 0 to `below` - 1 of SplitMix64 started with `seed`.
std::uint64_t draw(std::uint64_t seed, std::uint64_t number, std::uint64_t below);

// Where the crop of the `index`-th picture of a run lies in the enlarged picture. Raises Error where it is too small.
Place place(Picture const& picture, std::uint64_t seed, std::uint64_t index, std::string const& name);

// The crop of the picture enlarged by 1.5.
Crop cut(Picture const& picture, Place const& place);

}  // namespace cat2dog
