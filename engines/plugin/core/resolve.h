// A plan and the shapes of its inputs → the numbers of each launch. Nothing here takes memory from the heap.
#pragma once

#include <array>
#include <cstdint>

#include "plan.h"

namespace cat2dog {

struct Shape {
    int rank = 0;
    std::array<std::int64_t, kMostDims> sizes{};
};

// What the names stand for, given the shapes of all inputs. Raises Error where number, rank or a size does not fit.
Values bind_names(Plan const& plan, Shape const* inputs, int count);

// The shape of an output.
Shape output_shape(Plan const& plan, Values const& values, int index);

// Raises Error unless the outputs have the shapes that the plan gives them.
void check_outputs(Plan const& plan, Values const& values, Shape const* outputs, int count);

std::size_t workspace_bytes(Plan const& plan, Values const& values);

struct ResolvedMap {
    int rank = 0;
    std::array<std::uint64_t, kMostMapDims> dims{};
    std::array<std::uint64_t, kMostMapDims> strides{};  // in bytes; rank-1 of them
    std::uint64_t offset = 0;
};

struct ResolvedLaunch {
    std::array<std::uint32_t, 3> grid{};
    bool empty = false;                                   // a grid without blocks: nothing to launch
    std::array<std::int64_t, kMostArguments> numbers{};  // of addresses the offset; of i32 and i64 the value
    std::array<ResolvedMap, kMostMaps> maps{};
};

// Raises Error for a grid or number that CUDA cannot take, and for an address outside its tensor.
void resolve(Plan const& plan, Launch const& launch, Values const& values, ResolvedLaunch& resolved);

}  // namespace cat2dog
