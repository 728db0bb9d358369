// TensorRT 8.6: plugins of IPluginV2DynamicExt.
#include <cstring>

#include "registry.h"

namespace host {

bool const refuses_early = false;
bool const knows_bf16 = NV_TENSORRT_MAJOR >= 9;

namespace {

using namespace nvinfer1;  // NOLINT

std::vector<PluginTensorDesc> descs(std::vector<Tensor> const& tensors) {
    std::vector<PluginTensorDesc> made;
    for (Tensor const& tensor : tensors) made.push_back(desc_of(tensor));
    return made;
}

class PluginV2 final : public Plugin {
public:
    explicit PluginV2(IPluginV2* plugin, bool initialized = false)
        : plugin_(static_cast<IPluginV2DynamicExt*>(plugin)), initialized_(initialized) {}
    ~PluginV2() override {
        if (initialized_) plugin_->terminate();
        plugin_->destroy();
    }

    std::string identity() override {
        return std::string(plugin_->getPluginNamespace()) + "::" + plugin_->getPluginType() + " " +
            plugin_->getPluginVersion();
    }
    int outputs() override { return plugin_->getNbOutputs(); }
    DataType output_type(int index) override { return plugin_->getOutputDataType(index, nullptr, 0); }

    std::vector<Sizes> output_shapes(std::vector<Sizes> const& inputs) override {
        Expressions expressions;
        std::vector<DimsExprs> dims;
        for (Sizes const& sizes : inputs) dims.push_back(expressions.dims(sizes));
        std::vector<Sizes> shapes;
        for (int i = 0; i < outputs(); ++i) {
            DimsExprs const made = plugin_->getOutputDimensions(
                i, dims.data(), static_cast<std::int32_t>(dims.size()), expressions.builder());
            if (made.nbDims < 0) return {};
            shapes.push_back(Expressions::values(made));
        }
        return shapes;
    }

    bool supports(int position, std::vector<Tensor> const& tensors, int inputs) override {
        return plugin_->supportsFormatCombination(
            position, descs(tensors).data(), inputs, static_cast<std::int32_t>(tensors.size()) - inputs);
    }

    bool configure(std::vector<Sizes> const& least, std::vector<Sizes> const&, std::vector<Sizes> const& most,
        std::vector<Tensor> const& outputs) override {
        std::vector<DynamicPluginTensorDesc> in(least.size());
        for (std::size_t i = 0; i < least.size(); ++i) {
            in[i].desc.dims = dims_of(most[i]);
            in[i].min = dims_of(least[i]);
            in[i].max = dims_of(most[i]);
        }
        std::vector<DynamicPluginTensorDesc> out(outputs.size());
        plugin_->configurePlugin(
            in.data(), static_cast<std::int32_t>(in.size()), out.data(), static_cast<std::int32_t>(out.size()));
        return true;
    }

    std::size_t workspace(std::vector<Sizes> const& most) override {
        std::vector<PluginTensorDesc> in(most.size());
        for (std::size_t i = 0; i < most.size(); ++i) in[i].dims = dims_of(most[i]);
        return plugin_->getWorkspaceSize(in.data(), static_cast<std::int32_t>(in.size()), nullptr, 0);
    }

    std::string serialize() override {
        std::string bytes(plugin_->getSerializationSize(), '\0');
        plugin_->serialize(&bytes[0]);
        return bytes;
    }

    std::unique_ptr<Plugin> clone() override {
        IPluginV2* const made = plugin_->clone();
        return made != nullptr ? std::make_unique<PluginV2>(made) : nullptr;
    }

    // The first clone is made before initialize, later ones after it: plugins must bear both.
    std::unique_ptr<Plugin> attach() override {
        auto* const early = initialized_ ? nullptr : static_cast<IPluginV2DynamicExt*>(plugin_->clone());
        if (!initialized_ && plugin_->initialize() != 0) {
            early->destroy();
            return nullptr;
        }
        initialized_ = true;
        auto* const made = early != nullptr ? early : static_cast<IPluginV2DynamicExt*>(plugin_->clone());
        if (made == nullptr) return nullptr;
        made->attachToContext(nullptr, nullptr, nullptr);
        return std::make_unique<PluginV2>(made);
    }

    bool shape_change(std::vector<Tensor> const&, std::vector<Tensor> const&) override { return true; }

    void prepare(std::vector<Tensor> const& inputs, std::vector<Tensor> const& outputs) override {
        in_ = descs(inputs);
        out_ = descs(outputs);
    }

    int enqueue(std::vector<Tensor> const&, std::vector<Tensor> const&, void const* const* inputs, void* const* outputs,
        void* workspace, cudaStream_t stream) override {
        return plugin_->enqueue(in_.data(), out_.data(), inputs, outputs, workspace, stream);
    }

private:
    IPluginV2DynamicExt* plugin_;
    bool initialized_;
    std::vector<PluginTensorDesc> in_, out_;
};

IPluginCreator* creator_of(std::string const& kind) {
    return static_cast<IPluginCreator*>(global_registry().find({kind, "1", "cat2dog"}));
}

std::unique_ptr<Plugin> wrap(IPluginV2* plugin) {
    return plugin != nullptr ? std::make_unique<PluginV2>(plugin) : nullptr;
}

}  // namespace

Identity identity_of(Creator const& creator) {
    auto const& known = static_cast<IPluginCreator const&>(creator);
    return {known.getPluginName(), known.getPluginVersion(), known.getPluginNamespace()};
}

std::unique_ptr<Plugin> create(std::string const& kind, std::vector<Field> const& fields) {
    FieldList const list(fields);
    return wrap(creator_of(kind)->createPlugin("layer 7", &list.collection));
}

std::unique_ptr<Plugin> deserialize(std::string const& kind, std::string const& serialized) {
    return wrap(creator_of(kind)->deserializePlugin("layer 7", serialized.data(), serialized.size()));
}

std::string describe_creator(std::string const& kind) {
    IPluginCreator* const creator = creator_of(kind);
    return creator != nullptr ? describe(*creator) : "";
}

std::vector<std::string> registered() { return registered_names(); }
bool load_library(char const* path, bool global) { return load_into(path, global); }
void forget_creators() { global_registry().entries.clear(); }
int refused_registrations() { return global_registry().refused; }

}  // namespace host

extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginRegistry* getPluginRegistry() noexcept {
    return &host::global_registry();
}
