// Sizes that depend on a shape known only when an engine runs. The grammar is that of engines/kernels/sizes.py, and so
// are the results: strictly from left to right, every value at least 0 and below 2^63, anything else an error.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cat2dog {

constexpr int kMostNames = 16;

// The names that inputs have bound so far, in the order of their binding.
class Names {
public:
    // Index of a name, or -1.
    int find(std::string_view name) const noexcept;
    // Raises Error beyond kMostNames.
    int add(std::string_view name);
    int count() const noexcept { return static_cast<int>(names_.size()); }
    std::string const& operator[](int index) const noexcept { return names_[static_cast<std::size_t>(index)]; }

private:
    std::vector<std::string> names_;
};

// What each name stands for, by its index in Names.
using Values = std::array<std::int64_t, kMostNames>;

enum class SizeOp : std::uint8_t { kConstant, kName, kAdd, kSubtract, kMultiply, kDivide, kCdiv, kMin, kMax };

// One expression, compiled to postfix steps so that evaluating it takes no memory.
class Size {
public:
    struct Step {
        SizeOp op;
        std::int64_t value;  // of a constant; of a name, its index
    };

    // The constant 0.
    Size() : steps_{{SizeOp::kConstant, 0}} {}

    // Raises Error for what does not follow the grammar, for a name that is not in `names`, and for a constant
    // expression without a value.
    static Size parse(std::string_view text, Names const& names);

    // A bare name, bound at `index`.
    static Size name(int index);

    bool is_constant() const noexcept;
    // Whether it is the name with that index and nothing else.
    bool is_name(int index) const noexcept;

    // Raises Error for a negative or huge number on the way, or a division by zero.
    std::int64_t evaluate(Values const& values) const;

    // The same steps over another kind of value, such as TensorRT's dimension expressions.
    // `leaf(step)` gives a constant or a name, `apply(op, first, second)` the rest.
    template <typename T, typename Leaf, typename Apply>
    T fold(Leaf&& leaf, Apply&& apply) const {
        std::array<T, kDeepestStack> stack{};
        std::size_t top = 0;
        for (Step const& step : steps_) {
            if (step.op == SizeOp::kConstant || step.op == SizeOp::kName) {
                stack[top++] = leaf(step);
            } else {
                --top;
                stack[top - 1] = apply(step.op, stack[top - 1], stack[top]);
            }
        }
        return stack[0];
    }

private:
    friend class SizeParser;
    // At most two values wait at each of the 17 levels of nesting that the parser allows.
    static constexpr std::size_t kDeepestStack = 40;
    std::vector<Step> steps_;
};

// The result of one operator. Raises Error as Size::evaluate does.
std::int64_t apply_size_op(SizeOp op, std::int64_t first, std::int64_t second);

// A decimal whole number of 1 to 19 digits, without sign. Raises Error, naming `what`, unless `least` to `most`.
std::int64_t parse_integer(std::string_view text, char const* what, std::int64_t least, std::int64_t most);

// A name by the grammar: an upper-case letter, then at most 31 letters, digits or "_".
bool is_size_name(std::string_view text) noexcept;

}  // namespace cat2dog
