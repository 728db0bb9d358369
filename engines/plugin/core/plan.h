// A launch plan: which tensors a node takes and gives, and which kernels it launches with which arguments.
// The text it is read from is described in engines/kernels/launch.py.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "size.h"

namespace cat2dog {

// Bounds on what a plan may hold, so that a damaged or hostile one costs nothing, and so that a launch fits the stack.
constexpr std::size_t kMostText = 64 * 1024;
constexpr std::size_t kMostImageBytes = 64 * 1024 * 1024;
constexpr int kMostTensors = 16;  // inputs, and outputs
constexpr int kMostDims = 8;      // as TensorRT
constexpr int kMostImages = 16;
constexpr int kMostLaunches = 16;
constexpr int kMostArguments = 64;
constexpr int kMostMaps = 16;  // tensor maps of one launch
constexpr int kMostMapDims = 5;

enum class Type : std::uint8_t { kFp16, kBf16, kFp32, kI32, kU8, kI8 };

char const* type_name(Type type) noexcept;
int type_bytes(Type type) noexcept;

struct Target {
    int major = 0;
    int minor = 0;
    bool exact = false;  // else every later minor version too
};

struct Tensor {
    Type type = Type::kFp16;
    std::vector<Size> shape;
};

struct Image {
    std::size_t offset = 0;  // in the images' bytes
    std::size_t length = 0;
    std::uint64_t fnv = 0;
};

enum class Operand : std::uint8_t { kInput, kOutput, kWorkspace };

struct Address {
    Operand operand = Operand::kInput;
    int index = 0;  // 0 for the workspace
    Size offset;    // in bytes
};

enum class Swizzle : std::uint8_t { kNone, k32B, k64B, k128B };

// A TMA descriptor, innermost dimension first; strides in bytes, from the second dimension on.
struct TensorMap {
    Address at;
    Type type = Type::kFp16;
    Swizzle swizzle = Swizzle::kNone;
    std::vector<Size> dims;
    std::vector<Size> strides;
    std::vector<std::uint32_t> box;
};

enum class ArgumentKind : std::uint8_t { kAddress, kI32, kI64, kF32, kNull, kMap };

struct Argument {
    ArgumentKind kind = ArgumentKind::kNull;
    Address address;   // kAddress
    Size number;       // kI32, kI64
    float real = 0;    // kF32
    int map = 0;       // kMap: index in Launch::maps
};

struct Launch {
    int image = 0;
    std::string name;
    std::array<Size, 3> grid;
    std::array<std::uint32_t, 3> block{1, 1, 1};
    std::uint32_t shared = 0;
    std::array<std::uint32_t, 3> cluster{1, 1, 1};
    bool programmatic = false;
    std::vector<Argument> arguments;
    std::vector<TensorMap> maps;

    std::uint32_t cluster_size() const noexcept { return cluster[0] * cluster[1] * cluster[2]; }
};

struct Plan {
    Target target;
    Names names;
    std::vector<Tensor> inputs;
    std::vector<Tensor> outputs;
    Size workspace;
    std::vector<Image> images;
    std::vector<Launch> launches;
};

// Reads a whole plan; NULs after its end are ignored, since parsers append them. Raises Error that names the line, what
// it says and what was expected.
Plan parse_plan(std::string_view text);

}  // namespace cat2dog
