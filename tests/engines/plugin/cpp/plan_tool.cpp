// Answers about launch plans, a line for a line on stdin:
//
//   size EXPRESSION NAME=VALUE...      → "= 12", or "! message"
//   check HEX                          → "= ok", or "! message": whether the text, in hexadecimal, is a plan
//   plan HEX SHAPE;SHAPE...            → "= " and all launches with numbers in them; a shape is sizes apart by commas
#include <cstdio>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/resolve.h"

namespace {

using namespace cat2dog;

std::string from_hex(std::string const& hex) {
    std::string bytes;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
        bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    }
    return bytes;
}

std::string size(std::istringstream& words) {
    std::string expression;
    words >> expression;
    Names names;
    Values values{};
    for (std::string word; words >> word;) {
        std::size_t const equals = word.find('=');
        values[static_cast<std::size_t>(names.add(word.substr(0, equals)))] = std::stoll(word.substr(equals + 1));
    }
    return std::to_string(Size::parse(expression, names).evaluate(values));
}

std::vector<Shape> shapes_of(std::string const& text) {
    std::vector<Shape> shapes;
    std::istringstream each(text);
    for (std::string one; std::getline(each, one, ';');) {
        Shape shape;
        std::istringstream sizes(one);
        for (std::string number; std::getline(sizes, number, ',');) {
            shape.sizes.at(static_cast<std::size_t>(shape.rank++)) = std::stoll(number);
        }
        shapes.push_back(shape);
    }
    return shapes;
}

void address(std::ostream& out, Address const& at, std::uint64_t offset) {
    constexpr char const* kNames[] = {"input", "output", "workspace"};
    out << kNames[static_cast<int>(at.operand)];
    if (at.operand != Operand::kWorkspace) out << ' ' << at.index;
    out << ' ' << offset;
}

template <typename T>
void list(std::ostream& out, char const* word, T const& values, std::size_t count) {
    out << ' ' << word;
    for (std::size_t i = 0; i < count; ++i) out << ' ' << values[i];
}

void launch(std::ostream& out, Plan const& plan, Launch const& launch, Values const& values) {
    ResolvedLaunch resolved;
    resolve(plan, launch, values, resolved);
    out << "| kernel " << launch.image << ' ' << launch.name;
    list(out, "grid", resolved.grid, 3);
    list(out, "block", launch.block, 3);
    out << " shared " << launch.shared;
    list(out, "cluster", launch.cluster, 3);
    out << " programmatic " << launch.programmatic;
    for (std::size_t i = 0; i < launch.arguments.size(); ++i) {
        Argument const& argument = launch.arguments[i];
        out << " arg ";
        switch (argument.kind) {
            case ArgumentKind::kAddress:
                address(out, argument.address, static_cast<std::uint64_t>(resolved.numbers[i]));
                break;
            case ArgumentKind::kI32: out << "i32 " << resolved.numbers[i]; break;
            case ArgumentKind::kI64: out << "i64 " << resolved.numbers[i]; break;
            case ArgumentKind::kF32: {
                char text[64];
                std::snprintf(text, sizeof(text), "f32 %a", static_cast<double>(argument.real));
                out << text;
                break;
            }
            case ArgumentKind::kNull: out << "null"; break;
            case ArgumentKind::kMap: {
                TensorMap const& map = launch.maps[static_cast<std::size_t>(argument.map)];
                ResolvedMap const& numbers = resolved.maps[static_cast<std::size_t>(argument.map)];
                out << "tensormap ";
                address(out, map.at, numbers.offset);
                out << ' ' << type_name(map.type) << ' ' << static_cast<int>(map.swizzle);
                list(out, "dims", numbers.dims, map.dims.size());
                list(out, "strides", numbers.strides, map.strides.size());
                list(out, "box", map.box, map.box.size());
                break;
            }
        }
    }
    out << ' ';
}

std::string plan(std::istringstream& words) {
    std::string hex;
    std::string shapes;
    words >> hex >> shapes;
    Plan const plan = parse_plan(from_hex(hex));
    std::vector<Shape> const inputs = shapes_of(shapes);
    Values const values = bind_names(plan, inputs.data(), static_cast<int>(inputs.size()));
    std::ostringstream out;
    out << "target " << plan.target.major << '.' << plan.target.minor << ' ' << (plan.target.exact ? "exact" : "family");
    for (std::size_t i = 0; i < plan.outputs.size(); ++i) {
        Shape const shape = output_shape(plan, values, static_cast<int>(i));
        out << " output " << type_name(plan.outputs[i].type);
        for (int j = 0; j < shape.rank; ++j) out << ' ' << shape.sizes[static_cast<std::size_t>(j)];
    }
    out << " workspace " << workspace_bytes(plan, values);
    for (Image const& image : plan.images) out << " image " << image.offset << ' ' << image.length;
    out << ' ';
    for (Launch const& each : plan.launches) launch(out, plan, each, values);
    return out.str();
}

std::string answer(std::string const& line) {
    std::istringstream words(line);
    std::string verb;
    words >> verb;
    if (verb == "size") return size(words);
    if (verb == "plan") return plan(words);
    std::string hex;
    words >> hex;
    parse_plan(from_hex(hex));
    return "ok";
}

}  // namespace

int main() {
    for (std::string line; std::getline(std::cin, line);) {
        try {
            std::string const said = answer(line);
            std::cout << "= " << said << std::endl;
        } catch (Error const& error) {
            std::cout << "! " << error.what() << std::endl;
        }
    }
}
