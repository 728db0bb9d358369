// TensorRT as a plugin sees it, in little: makes plugins through their creators and calls them in TensorRT's order.
// host_v2.cpp and host_v3.cpp are the two TensorRTs.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace host {

using Sizes = std::vector<std::int64_t>;

struct Tensor {
    nvinfer1::DataType type = nvinfer1::DataType::kHALF;
    Sizes sizes;
    nvinfer1::TensorFormat format = nvinfer1::TensorFormat::kLINEAR;
};

struct Field {
    std::string name;
    nvinfer1::PluginFieldType type;
    std::string bytes;
    int length;  // in elements
};

// One plugin object; destroyed as TensorRT destroys it.
class Plugin {
public:
    virtual ~Plugin() = default;
    virtual std::string identity() = 0;  // "namespace::name version"
    virtual int outputs() = 0;
    virtual nvinfer1::DataType output_type(int index) = 0;
    // Through TensorRT's expressions; empty where refused.
    virtual std::vector<Sizes> output_shapes(std::vector<Sizes> const& inputs) = 0;
    virtual bool supports(int position, std::vector<Tensor> const& tensors, int inputs) = 0;
    // With one profile: least, tuned, most sizes of each input. V2 can refuse nothing and always says true.
    virtual bool configure(std::vector<Sizes> const& least, std::vector<Sizes> const& tuned,
        std::vector<Sizes> const& most, std::vector<Tensor> const& outputs) = 0;
    virtual std::size_t workspace(std::vector<Sizes> const& most) = 0;
    virtual std::string serialize() = 0;
    virtual std::unique_ptr<Plugin> clone() = 0;
    // What an execution context works with: V2's initialize, then a clone of it; V3's attachToContext. Null if refused.
    virtual std::unique_ptr<Plugin> attach() = 0;
    virtual bool shape_change(std::vector<Tensor> const& inputs, std::vector<Tensor> const& outputs) = 0;
    virtual int enqueue(std::vector<Tensor> const& inputs, std::vector<Tensor> const& outputs,
        void const* const* input_addresses, void* const* output_addresses, void* workspace, cudaStream_t stream) = 0;
    // Space for descriptors, so that `enqueue` takes no memory of its own. Called before allocations are counted.
    virtual void prepare(std::vector<Tensor> const& inputs, std::vector<Tensor> const& outputs) = 0;
};

// Null where the creator gives none.
std::unique_ptr<Plugin> create(std::string const& kind, std::vector<Field> const& fields);
std::unique_ptr<Plugin> deserialize(std::string const& kind, std::string const& serialized);

// "name version: field type, ..." of a registered creator; empty where there is none.
std::string describe_creator(std::string const& kind);

// What the host's registry holds, as "namespace::name version".
std::vector<std::string> registered();
// As IPluginRegistry::loadLibrary, seen with TensorRT 8.6.0: fails where a name is taken. Into the global registry, or
// into one of a builder.
bool load_library(char const* path, bool global);
void forget_creators();  // empties the global registry
// How many calls of registerCreator the registry has refused.
int refused_registrations();

std::string take_log();         // all messages since the last call, through TensorRT's logger
void use_logger_finder(bool use);  // hands the library a logger finder, whose logger prefixes "found: "
extern void* library;           // handle of the plugin library

// How the two TensorRTs differ where checks must know.
extern bool const refuses_early;  // configurePlugin and onShapeChange can refuse
extern bool const knows_bf16;

// Shared by both.
nvinfer1::Dims dims_of(Sizes const& sizes);
Sizes sizes_of(nvinfer1::Dims const& dims);
nvinfer1::PluginTensorDesc desc_of(Tensor const& tensor);

// Expressions over dimensions that are known: each is its value.
class Expressions {
public:
    Expressions();
    ~Expressions();
    nvinfer1::IExprBuilder& builder();
    nvinfer1::DimsExprs dims(Sizes const& sizes);
    static Sizes values(nvinfer1::DimsExprs const& dims);

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace host
