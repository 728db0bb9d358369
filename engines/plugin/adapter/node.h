// What both plugin classes are made of: one node of the network, its program and its loaded kernels.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <exception>
#include <memory>
#include <string>

#include "../core/kernels.h"
#include "../core/program.h"
#include "../core/resolve.h"

namespace cat2dog {

constexpr char const* kNamespace = "cat2dog";
constexpr char const* kVersion = "1";
// Every kind of node is hosted by the same class: what it computes stands in its plan.
constexpr std::array<char const*, 3> kNodeNames{"FusedAttention", "FusedLinear", "FusedPixels"};

constexpr char const* kLaunchField = "launch";
constexpr char const* kImagesField = "images";

// Which fields a creator asks the ONNX parser for.
nvinfer1::PluginFieldCollection const* node_fields() noexcept;

// Raises Error for fields that are missing, twice there, unknown, of another type or damaged, and for a plan with a type
// that these headers do not know.
std::shared_ptr<Program const> read_fields(nvinfer1::PluginFieldCollection const* fields);

struct Node {
    char const* kind = "";  // one of kNodeNames
    std::string layer;      // for messages
    std::shared_ptr<Program const> program;
    std::shared_ptr<Kernels const> kernels;  // null until loaded; clones share it

    Plan const& plan() const noexcept { return program->plan; }
    nvinfer1::DataType input_type(int index) const;
    nvinfer1::DataType output_type(int index) const;

    // Whether a tensor of a call, inputs first, is what the plan says: its type, stored row by row.
    bool supports(int position, nvinfer1::PluginTensorDesc const& tensor, int inputs, int outputs) const;

    // The shape of an output as expressions over those of the inputs.
    nvinfer1::DimsExprs output_dims(
        int index, nvinfer1::DimsExprs const* inputs, int count, nvinfer1::IExprBuilder& builder) const;

    // Types and shapes of a call, and that every number of every launch fits; for shapes that are known.
    void check(nvinfer1::PluginTensorDesc const* inputs, int input_count, nvinfer1::PluginTensorDesc const* outputs,
        int output_count) const;
    void check_types(nvinfer1::PluginTensorDesc const* inputs, nvinfer1::PluginTensorDesc const* outputs) const;
    void check_inputs(nvinfer1::Dims const* inputs, int count) const;

    std::size_t workspace(nvinfer1::Dims const* inputs, int count) const;

    void load() { kernels = Kernels::load(program); }
    void enqueue(nvinfer1::PluginTensorDesc const* input_descs, nvinfer1::PluginTensorDesc const* output_descs,
        Pointers const& pointers, cudaStream_t stream) const;
};

void report_error(char const* kind, char const* layer, char const* message) noexcept;

// Runs `body`; what it throws is logged and `otherwise` returned, since nothing may be thrown into TensorRT.
template <typename Result, typename Body>
Result guarded(char const* kind, char const* layer, Result otherwise, Body&& body) noexcept {
    try {
        return body();
    } catch (std::exception const& error) {
        report_error(kind, layer, error.what());
    } catch (...) {
        report_error(kind, layer, "an unknown error");
    }
    return otherwise;
}

template <typename Result, typename Body>
Result guarded(Node const& node, Result otherwise, Body&& body) noexcept {
    return guarded(node.kind, node.layer.c_str(), otherwise, body);
}

}  // namespace cat2dog
