#include "resolve.h"

#include <limits>

#include "error.h"

namespace cat2dog {
namespace {

constexpr std::int64_t kMostGrid[] = {std::numeric_limits<std::int32_t>::max(), 65535, 65535};

using Printable = long long;

// "[2,256,-1]" into a buffer of the caller.
char const* words(Shape const& shape, std::array<char, 192>& buffer) {
    std::size_t at = 0;
    buffer[at++] = '[';
    for (int i = 0; i < shape.rank; ++i) {
        std::int64_t value = shape.sizes[static_cast<std::size_t>(i)];
        if (i > 0) buffer[at++] = ',';
        if (value < 0) {
            buffer[at++] = '-';
            value = value == std::numeric_limits<std::int64_t>::min() ? 0 : -value;
        }
        std::array<char, 20> digits{};
        std::size_t count = 0;
        do digits[count++] = static_cast<char>('0' + value % 10);
        while ((value /= 10) > 0);
        while (count > 0) buffer[at++] = digits[--count];
    }
    buffer[at++] = ']';
    buffer[at] = '\0';
    return buffer.data();
}

Shape evaluate(std::vector<Size> const& sizes, Values const& values) {
    Shape shape;
    for (Size const& size : sizes) shape.sizes[static_cast<std::size_t>(shape.rank++)] = size.evaluate(values);
    return shape;
}

std::int64_t tensor_bytes(Tensor const& tensor, Values const& values) {
    std::int64_t bytes = type_bytes(tensor.type);
    for (Size const& size : tensor.shape) bytes = apply_size_op(SizeOp::kMultiply, bytes, size.evaluate(values));
    return bytes;
}

// The offset of an address, which must lie inside its tensor; an empty tensor still has a beginning.
std::int64_t offset_in(Plan const& plan, Address const& address, Values const& values) {
    std::int64_t const offset = address.offset.evaluate(values);
    if (offset == 0) return 0;
    auto const index = static_cast<std::size_t>(address.index);
    std::int64_t const bytes = address.operand == Operand::kWorkspace ? plan.workspace.evaluate(values)
        : tensor_bytes(address.operand == Operand::kInput ? plan.inputs[index] : plan.outputs[index], values);
    if (offset >= bytes) {
        fail("an argument is %lld bytes into a tensor of %lld bytes", static_cast<Printable>(offset),
            static_cast<Printable>(bytes));
    }
    return offset;
}

}  // namespace

Values bind_names(Plan const& plan, Shape const* inputs, int count) {
    if (count != static_cast<int>(plan.inputs.size())) {
        fail("%d inputs, expected %zu", count, plan.inputs.size());
    }
    Values values{};
    int bound = 0;
    for (std::size_t i = 0; i < plan.inputs.size(); ++i) {
        std::vector<Size> const& sizes = plan.inputs[i].shape;
        Shape expected;
        expected.rank = static_cast<int>(sizes.size());
        bool fits = inputs[i].rank == expected.rank;
        for (int j = 0; fits && j < expected.rank; ++j) {
            auto const at = static_cast<std::size_t>(j);
            std::int64_t const given = inputs[i].sizes[at];
            // Names were numbered in the order of their binding, so this dimension binds the next one or none.
            if (sizes[at].is_name(bound)) {
                if (given < 0) fail("input %zu has size %lld, which is not known", i, static_cast<Printable>(given));
                values[static_cast<std::size_t>(bound++)] = given;
            }
            expected.sizes[at] = sizes[at].evaluate(values);
            fits = given == expected.sizes[at];
            if (!fits) {
                std::array<char, 192> shape{};
                fail("input %zu has shape %s, expected %lld in place of %lld", i, words(inputs[i], shape),
                    static_cast<Printable>(expected.sizes[at]), static_cast<Printable>(given));
            }
        }
        if (!fits) {
            std::array<char, 192> shape{};
            fail("input %zu has shape %s, expected %d dimensions", i, words(inputs[i], shape), expected.rank);
        }
    }
    return values;
}

Shape output_shape(Plan const& plan, Values const& values, int index) {
    if (index < 0 || index >= static_cast<int>(plan.outputs.size())) {
        fail("there is no output %d, only %zu", index, plan.outputs.size());
    }
    return evaluate(plan.outputs[static_cast<std::size_t>(index)].shape, values);
}

void check_outputs(Plan const& plan, Values const& values, Shape const* outputs, int count) {
    if (count != static_cast<int>(plan.outputs.size())) fail("%d outputs, expected %zu", count, plan.outputs.size());
    for (int i = 0; i < count; ++i) {
        Shape const expected = output_shape(plan, values, i);
        bool fits = outputs[i].rank == expected.rank;
        for (int j = 0; fits && j < expected.rank; ++j) {
            fits = outputs[i].sizes[static_cast<std::size_t>(j)] == expected.sizes[static_cast<std::size_t>(j)];
        }
        if (!fits) {
            std::array<char, 192> given{};
            std::array<char, 192> wanted{};
            fail("output %d has shape %s, expected %s", i, words(outputs[i], given), words(expected, wanted));
        }
    }
}

std::size_t workspace_bytes(Plan const& plan, Values const& values) {
    return static_cast<std::size_t>(plan.workspace.evaluate(values));
}

void resolve(Plan const& plan, Launch const& launch, Values const& values, ResolvedLaunch& resolved) {
    resolved.empty = false;
    for (std::size_t i = 0; i < 3; ++i) {
        std::int64_t const blocks = launch.grid[i].evaluate(values);
        if (blocks > kMostGrid[i]) {
            fail("kernel %.200s: grid of %lld blocks in dimension %zu, at most %lld", launch.name.c_str(),
                static_cast<Printable>(blocks), i, static_cast<Printable>(kMostGrid[i]));
        }
        resolved.grid[i] = static_cast<std::uint32_t>(blocks);
        resolved.empty = resolved.empty || blocks == 0;
    }
    for (std::size_t i = 0; i < launch.arguments.size(); ++i) {
        Argument const& argument = launch.arguments[i];
        std::int64_t& number = resolved.numbers[i];
        switch (argument.kind) {
            case ArgumentKind::kAddress: number = offset_in(plan, argument.address, values); break;
            case ArgumentKind::kI32:
            case ArgumentKind::kI64:
                number = argument.number.evaluate(values);
                if (argument.kind == ArgumentKind::kI32 && number > std::numeric_limits<std::int32_t>::max()) {
                    fail("kernel %.200s: argument %zu is %lld, which an i32 does not hold", launch.name.c_str(), i,
                        static_cast<Printable>(number));
                }
                break;
            default: number = 0;
        }
    }
    for (std::size_t i = 0; i < launch.maps.size(); ++i) {
        TensorMap const& map = launch.maps[i];
        ResolvedMap& made = resolved.maps[i];
        made.rank = static_cast<int>(map.dims.size());
        for (std::size_t j = 0; j < map.dims.size(); ++j) {
            made.dims[j] = static_cast<std::uint64_t>(map.dims[j].evaluate(values));
        }
        for (std::size_t j = 0; j < map.strides.size(); ++j) {
            made.strides[j] = static_cast<std::uint64_t>(map.strides[j].evaluate(values));
        }
        made.offset = static_cast<std::uint64_t>(offset_in(plan, map.at, values));
    }
}

}  // namespace cat2dog
