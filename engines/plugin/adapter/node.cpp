#include "node.h"

#include <cstdio>
#include <cstring>
#include <limits>
#include <string_view>

#include "../core/error.h"
#include "log.h"

namespace cat2dog {
namespace {

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::PluginFieldType;

DataType data_type(Type type) {
    switch (type) {
        case Type::kFp16: return DataType::kHALF;
        case Type::kFp32: return DataType::kFLOAT;
        case Type::kI32: return DataType::kINT32;
        case Type::kU8: return DataType::kUINT8;
        case Type::kI8: return DataType::kINT8;
        case Type::kBf16: break;
    }
#if NV_TENSORRT_MAJOR >= 9
    return DataType::kBF16;
#else
    fail("the launch plan has bf16 tensors, which TensorRT %d.%d does not know: use fp16", NV_TENSORRT_MAJOR,
        NV_TENSORRT_MINOR);
#endif
}

Shape shape_of(nvinfer1::Dims const& dims) {
    Shape shape;
    if (dims.nbDims < 0 || dims.nbDims > kMostDims) fail("a tensor of %d dimensions, at most %d", dims.nbDims, kMostDims);
    shape.rank = dims.nbDims;
    for (int i = 0; i < dims.nbDims; ++i) shape.sizes[static_cast<std::size_t>(i)] = dims.d[i];
    return shape;
}

using Shapes = std::array<Shape, kMostTensors>;

void expect(char const* what, int count, std::size_t expected) {
    if (count != static_cast<int>(expected)) fail("%d %s, expected %zu", count, what, expected);
}

Values bind(Plan const& plan, nvinfer1::Dims const* dims, int count) {
    expect("inputs", count, plan.inputs.size());
    Shapes shapes;
    for (int i = 0; i < count; ++i) shapes[static_cast<std::size_t>(i)] = shape_of(dims[i]);
    return bind_names(plan, shapes.data(), count);
}

// Raises Error where a number of some launch does not fit.
void try_launches(Plan const& plan, Values const& values) {
    workspace_bytes(plan, values);
    for (Launch const& launch : plan.launches) {
        ResolvedLaunch resolved;
        resolve(plan, launch, values, resolved);
    }
}

// Length in bytes of a field that carries bytes, in whatever type an importer wraps them. Raises Error for other types.
std::size_t field_bytes(nvinfer1::PluginField const& field) {
    std::size_t element = 0;
    switch (field.type) {
        case PluginFieldType::kINT8:
        case PluginFieldType::kCHAR:
        case PluginFieldType::kUNKNOWN: element = 1; break;
        case PluginFieldType::kINT32: element = 4; break;
        default:
            fail("field '%s' has type %d, expected one that carries bytes: INT8, CHAR, INT32 or UNKNOWN", field.name,
                static_cast<int>(field.type));
    }
    if (field.length < 0 || (field.length > 0 && field.data == nullptr)) fail("field '%s' has no data", field.name);
    return element * static_cast<std::size_t>(field.length);
}

DimensionOperation operation(SizeOp op) {
    switch (op) {
        case SizeOp::kAdd: return DimensionOperation::kSUM;
        case SizeOp::kSubtract: return DimensionOperation::kSUB;
        case SizeOp::kMultiply: return DimensionOperation::kPROD;
        case SizeOp::kDivide: return DimensionOperation::kFLOOR_DIV;
        case SizeOp::kCdiv: return DimensionOperation::kCEIL_DIV;
        case SizeOp::kMin: return DimensionOperation::kMIN;
        default: return DimensionOperation::kMAX;
    }
}

}  // namespace

nvinfer1::PluginFieldCollection const* node_fields() noexcept {
    static nvinfer1::PluginField const fields[] = {
        {kLaunchField, nullptr, PluginFieldType::kCHAR, 1}, {kImagesField, nullptr, PluginFieldType::kINT8, 1}};
    static nvinfer1::PluginFieldCollection const collection{2, fields};
    return &collection;
}

std::shared_ptr<Program const> read_fields(nvinfer1::PluginFieldCollection const* fields) {
    std::string_view launch;
    std::string_view images;
    for (int i = 0; fields != nullptr && i < fields->nbFields; ++i) {
        nvinfer1::PluginField const& field = fields->fields[i];
        char const* const name = field.name != nullptr ? field.name : "";
        bool const is_launch = std::strcmp(name, kLaunchField) == 0;
        if (!is_launch && std::strcmp(name, kImagesField) != 0) {
            fail("unknown field '%.100s', expected '%s' and '%s'", name, kLaunchField, kImagesField);
        }
        std::string_view& content = is_launch ? launch : images;
        if (content.data() != nullptr) fail("field '%s' is there twice", name);
        content = {static_cast<char const*>(field.data), field_bytes(field)};
    }
    if (launch.empty()) fail("no field '%s', expected a launch plan in it", kLaunchField);
    if (images.empty()) fail("no field '%s', expected compiled kernels in it", kImagesField);
    std::shared_ptr<Program const> program = Program::make(launch, images);
    for (Tensor const& tensor : program->plan.inputs) data_type(tensor.type);
    for (Tensor const& tensor : program->plan.outputs) data_type(tensor.type);
    return program;
}

DataType Node::input_type(int index) const {
    if (index < 0 || index >= static_cast<int>(plan().inputs.size())) fail("there is no input %d", index);
    return data_type(plan().inputs[static_cast<std::size_t>(index)].type);
}

DataType Node::output_type(int index) const {
    if (index < 0 || index >= static_cast<int>(plan().outputs.size())) fail("there is no output %d", index);
    return data_type(plan().outputs[static_cast<std::size_t>(index)].type);
}

bool Node::supports(int position, nvinfer1::PluginTensorDesc const& tensor, int inputs, int outputs) const {
    expect("inputs", inputs, plan().inputs.size());
    expect("outputs", outputs, plan().outputs.size());
    DataType const expected = position < inputs ? input_type(position) : output_type(position - inputs);
    return tensor.type == expected && tensor.format == nvinfer1::TensorFormat::kLINEAR;
}

nvinfer1::DimsExprs Node::output_dims(
    int index, nvinfer1::DimsExprs const* inputs, int count, nvinfer1::IExprBuilder& builder) const {
    expect("inputs", count, plan().inputs.size());
    output_type(index);  // that there is one
    // Where each name stands: names are bound in order, each by the first dimension that is nothing but the name.
    std::array<nvinfer1::IDimensionExpr const*, kMostNames> names{};
    int bound = 0;
    for (int i = 0; i < count; ++i) {
        std::vector<Size> const& shape = plan().inputs[static_cast<std::size_t>(i)].shape;
        if (inputs[i].nbDims != static_cast<int>(shape.size())) {
            fail("input %d has %d dimensions, expected %zu", i, inputs[i].nbDims, shape.size());
        }
        for (std::size_t j = 0; j < shape.size(); ++j) {
            if (shape[j].is_name(bound)) names[static_cast<std::size_t>(bound++)] = inputs[i].d[j];
        }
    }
    nvinfer1::DimsExprs dims{};
    for (Size const& size : plan().outputs[static_cast<std::size_t>(index)].shape) {
        using Expression = nvinfer1::IDimensionExpr const*;
        dims.d[dims.nbDims++] = size.fold<Expression>(
            [&](Size::Step const& step) {
                if (step.op == SizeOp::kName) return names[static_cast<std::size_t>(step.value)];
                using Integer = decltype(std::declval<nvinfer1::IDimensionExpr const&>().getConstantValue());
                if (step.value > std::numeric_limits<Integer>::max()) fail("a size is too large for TensorRT");
                return builder.constant(static_cast<Integer>(step.value));
            },
            [&](SizeOp op, Expression first, Expression second) {
                if (first == nullptr || second == nullptr) fail("TensorRT made no expression of a size");
                return builder.operation(operation(op), *first, *second);
            });
        if (dims.d[dims.nbDims - 1] == nullptr) fail("TensorRT made no expression of a size");
    }
    return dims;
}

void Node::check_types(
    nvinfer1::PluginTensorDesc const* inputs, nvinfer1::PluginTensorDesc const* outputs) const {
    auto const check_one = [](char const* what, std::size_t index, Type type, nvinfer1::PluginTensorDesc const& given) {
        if (given.type != data_type(type)) {
            fail("%s %zu has TensorRT's type %d, expected %s", what, index, static_cast<int>(given.type),
                type_name(type));
        }
        if (given.format != nvinfer1::TensorFormat::kLINEAR) {
            fail("%s %zu has tensor format %d, expected linear", what, index, static_cast<int>(given.format));
        }
    };
    for (std::size_t i = 0; i < plan().inputs.size(); ++i) check_one("input", i, plan().inputs[i].type, inputs[i]);
    for (std::size_t i = 0; i < plan().outputs.size(); ++i) check_one("output", i, plan().outputs[i].type, outputs[i]);
}

void Node::check(nvinfer1::PluginTensorDesc const* inputs, int input_count, nvinfer1::PluginTensorDesc const* outputs,
    int output_count) const {
    expect("inputs", input_count, plan().inputs.size());
    expect("outputs", output_count, plan().outputs.size());
    check_types(inputs, outputs);
    Shapes shapes;
    for (std::size_t i = 0; i < plan().inputs.size(); ++i) shapes[i] = shape_of(inputs[i].dims);
    Values const values = bind_names(plan(), shapes.data(), input_count);
    for (std::size_t i = 0; i < plan().outputs.size(); ++i) shapes[i] = shape_of(outputs[i].dims);
    check_outputs(plan(), values, shapes.data(), output_count);
    try_launches(plan(), values);
}

void Node::check_inputs(nvinfer1::Dims const* inputs, int count) const {
    try_launches(plan(), bind(plan(), inputs, count));
}

std::size_t Node::workspace(nvinfer1::Dims const* inputs, int count) const {
    return workspace_bytes(plan(), bind(plan(), inputs, count));
}

void Node::enqueue(nvinfer1::PluginTensorDesc const* input_descs, nvinfer1::PluginTensorDesc const* output_descs,
    Pointers const& pointers, cudaStream_t stream) const {
    if (kernels == nullptr) fail("its kernels are not loaded: enqueue before initialize or attachToContext");
    check_types(input_descs, output_descs);
    Shapes shapes;
    for (std::size_t i = 0; i < plan().inputs.size(); ++i) shapes[i] = shape_of(input_descs[i].dims);
    Values const values = bind_names(plan(), shapes.data(), static_cast<int>(plan().inputs.size()));
    for (std::size_t i = 0; i < plan().outputs.size(); ++i) shapes[i] = shape_of(output_descs[i].dims);
    check_outputs(plan(), values, shapes.data(), static_cast<int>(plan().outputs.size()));
    kernels->launch(values, pointers, stream);
}

void report_error(char const* kind, char const* layer, char const* message) noexcept {
    char line[1400];
    std::snprintf(line, sizeof(line), "%s::%s '%.200s': %s", kNamespace, kind, layer, message);
    log_error(line);
}

}  // namespace cat2dog
