// The plugin as TensorRT 10 and later know it: IPluginV3 with its three capabilities in one object.
//
// TensorRT calls createPlugin with the fields of the node or of the engine, and attachToContext for each execution
// context; the clone that this gives is the one that runs, so that is where kernels are loaded.
#include "../core/error.h"
#include "creators.h"
#include "node.h"

namespace cat2dog {
namespace {

using namespace nvinfer1;  // NOLINT: an adapter speaks TensorRT's language throughout

using DimsOf = Dims (*)(DynamicPluginTensorDesc const&);

bool is_known(Dims const& dims) noexcept {
    for (int32_t i = 0; i < dims.nbDims; ++i) {
        if (dims.d[i] < 0) return false;
    }
    return true;
}

class PluginV3 final : public IPluginV3,
                       public IPluginV3OneCore,
                       public IPluginV3OneBuild,
                       public IPluginV3OneRuntime {
public:
    explicit PluginV3(Node node) : node_(std::move(node)) {}

    IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
        switch (type) {
            case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
            case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
            case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }

    IPluginV3* clone() noexcept override {
        return guarded<IPluginV3*>(node_, nullptr, [&] { return new PluginV3(node_); });
    }

    // Core

    AsciiChar const* getPluginName() const noexcept override { return node_.kind; }
    AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
    AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }

    // Build

    int32_t getNbOutputs() const noexcept override { return static_cast<int32_t>(node_.plan().outputs.size()); }

    int32_t getOutputDataTypes(
        DataType* types, int32_t count, DataType const*, int32_t) const noexcept override {
        return guarded(node_, 1, [&] {
            for (int32_t i = 0; i < count; ++i) types[i] = node_.output_type(i);
            return 0;
        });
    }

    int32_t getOutputShapes(DimsExprs const* inputs, int32_t input_count, DimsExprs const*, int32_t,
        DimsExprs* outputs, int32_t output_count, IExprBuilder& builder) noexcept override {
        return guarded(node_, 1, [&] {
            for (int32_t i = 0; i < output_count; ++i) {
                outputs[i] = node_.output_dims(i, inputs, input_count, builder);
            }
            return 0;
        });
    }

    bool supportsFormatCombination(
        int32_t position, DynamicPluginTensorDesc const* tensors, int32_t inputs, int32_t outputs) noexcept override {
        return guarded(node_, false, [&] { return node_.supports(position, tensors[position].desc, inputs, outputs); });
    }

    // Called with the ranges of a profile before it is tried: whatever batch of it cannot run is refused here, while
    // the engine is built.
    int32_t configurePlugin(DynamicPluginTensorDesc const* inputs, int32_t count, DynamicPluginTensorDesc const*,
        int32_t) noexcept override {
        return guarded(node_, 1, [&] {
            for (DimsOf const of : kRange) {
                std::array<Dims, kMostTensors> dims;
                if (collect(inputs, count, of, dims)) node_.check_inputs(dims.data(), count);
            }
            return 0;
        });
    }

    size_t getWorkspaceSize(DynamicPluginTensorDesc const* inputs, int32_t count, DynamicPluginTensorDesc const*,
        int32_t) const noexcept override {
        return guarded(node_, size_t{0}, [&] {
            // The largest of the three, since an expression may also fall with the batch.
            size_t most = 0;
            for (DimsOf const of : kRange) {
                std::array<Dims, kMostTensors> dims;
                if (collect(inputs, count, of, dims)) most = std::max(most, node_.workspace(dims.data(), count));
            }
            return most;
        });
    }

    // Runtime

    int32_t onShapeChange(PluginTensorDesc const* inputs, int32_t input_count, PluginTensorDesc const* outputs,
        int32_t output_count) noexcept override {
        return guarded(node_, 1, [&] {
            node_.check(inputs, input_count, outputs, output_count);
            return 0;
        });
    }

    int32_t enqueue(PluginTensorDesc const* input_descs, PluginTensorDesc const* output_descs,
        void const* const* inputs, void* const* outputs, void* workspace, cudaStream_t stream) noexcept override {
        return guarded(node_, 1, [&] {
            node_.enqueue(input_descs, output_descs, {inputs, outputs, workspace}, stream);
            return 0;
        });
    }

    IPluginV3* attachToContext(IPluginResourceContext*) noexcept override {
        return guarded<IPluginV3*>(node_, nullptr, [&] {
            auto attached = std::make_unique<PluginV3>(node_);
            attached->node_.load();
            return attached.release();
        });
    }

    PluginFieldCollection const* getFieldsToSerialize() noexcept override {
        std::string const& text = node_.program->text;
        std::string const& images = node_.program->images;
        fields_ = {PluginField{kLaunchField, text.data(), PluginFieldType::kCHAR, static_cast<int32_t>(text.size())},
            PluginField{kImagesField, images.data(), PluginFieldType::kINT8, static_cast<int32_t>(images.size())}};
        collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
        return &collection_;
    }

private:
    static constexpr DimsOf kRange[] = {[](DynamicPluginTensorDesc const& tensor) { return tensor.min; },
        [](DynamicPluginTensorDesc const& tensor) { return tensor.opt; },
        [](DynamicPluginTensorDesc const& tensor) { return tensor.max; }};

    // One end of the range of every input; false where TensorRT does not know it.
    static bool collect(DynamicPluginTensorDesc const* inputs, int32_t count, DimsOf of,
        std::array<Dims, kMostTensors>& dims) {
        if (count < 0 || count > kMostTensors) fail("%d inputs, at most %d", count, kMostTensors);
        bool known = true;
        for (int32_t i = 0; i < count; ++i) {
            Dims& one = dims[static_cast<std::size_t>(i)];
            one = of(inputs[i]);
            known = known && is_known(one);
        }
        return known;
    }

    Node node_;
    std::array<PluginField, 2> fields_;
    PluginFieldCollection collection_{};
};

class CreatorV3 final : public IPluginCreatorV3One {
public:
    explicit CreatorV3(char const* kind) : kind_(kind) {}

    AsciiChar const* getPluginName() const noexcept override { return kind_; }
    AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
    AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }
    PluginFieldCollection const* getFieldNames() noexcept override { return node_fields(); }

    // An engine gives back the fields that it was built from, so both phases are one.
    IPluginV3* createPlugin(AsciiChar const* layer, PluginFieldCollection const* fields, TensorRTPhase) noexcept override {
        char const* const name = layer != nullptr ? layer : "";
        return guarded<IPluginV3*>(kind_, name, nullptr, [&] { return new PluginV3(Node{kind_, name, read_fields(fields), nullptr}); });
    }

private:
    char const* kind_;
};

}  // namespace

Creators const& creators() noexcept {
    // Never destroyed: TensorRT's registry may be asked for them until the process ends.
    static Creators const& all = *new Creators{new CreatorV3(kNodeNames[0]),
        new CreatorV3(kNodeNames[1]), new CreatorV3(kNodeNames[2])};
    return all;
}

}  // namespace cat2dog
