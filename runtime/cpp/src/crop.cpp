#include <algorithm>

#include "error.h"
#include "picture.h"

namespace cat2dog {
namespace {

// The bicubic kernel (a = -1/2) 5/6, 1/2 and 1/6 after the second of four pixels, times 432.
constexpr int kWeights[3][4] = {{-5, 57, 405, -25}, {-27, 243, 243, -27}, {-25, 405, 57, -5}};
constexpr int kOne = 432;

struct Taps {
    int at[4];
    int const* weights;
};

std::array<Taps, kCrop> taps(int start, int size) {
    std::array<Taps, kCrop> made{};
    for (int i = 0; i < kCrop; ++i) {
        int const position = start + i;
        // floor((4 * position - 1) / 6), also where position is 0.
        int const first = (4 * position + 5) / 6 - 1;
        for (int tap = 0; tap < 4; ++tap) {
            made[static_cast<std::size_t>(i)].at[tap] = std::clamp(first - 1 + tap, 0, size - 1);
        }
        made[static_cast<std::size_t>(i)].weights = kWeights[position % 3];
    }
    return made;
}

}  // namespace

std::uint64_t draw(std::uint64_t seed, std::uint64_t number, std::uint64_t below) {
    std::uint64_t z = seed + (number + 1) * 0x9E3779B97F4A7C15U;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9U;
    z = (z ^ z >> 27) * 0x94D049BB133111EBU;
    z ^= z >> 31;
    return (z >> 32) * below >> 32;
}

Place place(Picture const& picture, std::uint64_t seed, std::uint64_t index, std::string const& name) {
    if (std::min(picture.height, picture.width) < kLeastSide) {
        std::string const least = std::to_string(kLeastSide);
        throw bad_input(name + ": the picture is " + std::to_string(picture.width) + " x " + std::to_string(picture.height) +
                        " pixels; expected at least " + least + " x " + least);
    }
    auto const drawn = [&](std::uint64_t axis, int side) {
        return static_cast<int>(draw(seed, 2 * index + axis, static_cast<std::uint64_t>(side * 3LL / 2 - kCrop + 1)));
    };
    return {drawn(0, picture.height), drawn(1, picture.width)};
}

Crop cut(Picture const& picture, Place const& place) {
    auto const rows = taps(place.top, picture.height);
    auto const columns = taps(place.left, picture.width);
    int const from = columns.front().at[0];
    int const to = columns.back().at[3] + 1;
    std::vector<int> line(static_cast<std::size_t>(to - from) * 3);
    Crop crop{};
    std::uint8_t* out = crop.data();
    for (Taps const& row : rows) {
        std::uint8_t const* above[4];
        for (int tap = 0; tap < 4; ++tap) {
            above[tap] = picture.pixels.data() + (static_cast<std::size_t>(row.at[tap]) * static_cast<std::size_t>(picture.width) + static_cast<std::size_t>(from)) * 3;
        }
        for (std::size_t i = 0; i < line.size(); ++i) {
            line[i] = row.weights[0] * above[0][i] + row.weights[1] * above[1][i] + row.weights[2] * above[2][i] +
                      row.weights[3] * above[3][i];
        }
        for (Taps const& column : columns) {
            for (int colour = 0; colour < 3; ++colour) {
                // 255 * 492 * 492, the largest sum there can be, is far from an int's end.
                int sum = kOne * kOne / 2;
                for (int tap = 0; tap < 4; ++tap) {
                    sum += column.weights[tap] * line[static_cast<std::size_t>((column.at[tap] - from) * 3 + colour)];
                }
                *out++ = static_cast<std::uint8_t>(sum <= 0 ? 0 : std::min(sum / (kOne * kOne), 255));
            }
        }
    }
    return crop;
}

}  // namespace cat2dog
