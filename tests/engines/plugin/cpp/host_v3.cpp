// TensorRT 10 and later: plugins of IPluginV3.
#include <cstring>
#include <stdexcept>

#include "registry.h"

namespace host {

bool const refuses_early = true;
bool const knows_bf16 = true;

namespace {

using namespace nvinfer1;  // NOLINT

std::vector<PluginTensorDesc> descs(std::vector<Tensor> const& tensors) {
    std::vector<PluginTensorDesc> made;
    for (Tensor const& tensor : tensors) made.push_back(desc_of(tensor));
    return made;
}

std::vector<DynamicPluginTensorDesc> ranges(
    std::vector<Sizes> const& least, std::vector<Sizes> const& tuned, std::vector<Sizes> const& most) {
    std::vector<DynamicPluginTensorDesc> made(least.size());
    for (std::size_t i = 0; i < least.size(); ++i) {
        made[i].desc.dims = dims_of(least[i]);
        for (std::size_t j = 0; j < least[i].size(); ++j) {
            if (least[i][j] != most[i][j]) made[i].desc.dims.d[j] = -1;
        }
        made[i].min = dims_of(least[i]);
        made[i].opt = dims_of(tuned[i]);
        made[i].max = dims_of(most[i]);
    }
    return made;
}

class Context final : public IPluginResourceContext {
public:
    IGpuAllocator* getGpuAllocator() const noexcept override { return nullptr; }
    IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
};

class PluginV3 final : public Plugin {
public:
    explicit PluginV3(IPluginV3* plugin) : plugin_(plugin) {
        core_ = static_cast<IPluginV3OneCore*>(capability(PluginCapabilityType::kCORE, "PLUGIN_V3ONE_CORE"));
        build_ = static_cast<IPluginV3OneBuild*>(capability(PluginCapabilityType::kBUILD, "PLUGIN_V3ONE_BUILD"));
        runtime_ = static_cast<IPluginV3OneRuntime*>(capability(PluginCapabilityType::kRUNTIME, "PLUGIN_V3ONE_RUNTIME"));
    }
    ~PluginV3() override { delete plugin_; }

    std::string identity() override {
        return std::string(core_->getPluginNamespace()) + "::" + core_->getPluginName() + " " + core_->getPluginVersion();
    }
    int outputs() override { return build_->getNbOutputs(); }

    DataType output_type(int index) override {
        std::vector<DataType> types(static_cast<std::size_t>(outputs()));
        if (build_->getOutputDataTypes(types.data(), outputs(), nullptr, 0) != 0) throw std::runtime_error("no types");
        return types[static_cast<std::size_t>(index)];
    }

    std::vector<Sizes> output_shapes(std::vector<Sizes> const& inputs) override {
        Expressions expressions;
        std::vector<DimsExprs> dims;
        for (Sizes const& sizes : inputs) dims.push_back(expressions.dims(sizes));
        std::vector<DimsExprs> made(static_cast<std::size_t>(outputs()));
        if (build_->getOutputShapes(dims.data(), static_cast<std::int32_t>(dims.size()), nullptr, 0, made.data(),
                outputs(), expressions.builder()) != 0) {
            return {};
        }
        std::vector<Sizes> shapes;
        for (DimsExprs const& each : made) shapes.push_back(Expressions::values(each));
        return shapes;
    }

    bool supports(int position, std::vector<Tensor> const& tensors, int inputs) override {
        std::vector<DynamicPluginTensorDesc> dynamic(tensors.size());
        for (std::size_t i = 0; i < tensors.size(); ++i) dynamic[i].desc = desc_of(tensors[i]);
        return build_->supportsFormatCombination(
            position, dynamic.data(), inputs, static_cast<std::int32_t>(tensors.size()) - inputs);
    }

    bool configure(std::vector<Sizes> const& least, std::vector<Sizes> const& tuned, std::vector<Sizes> const& most,
        std::vector<Tensor> const& outputs) override {
        std::vector<DynamicPluginTensorDesc> const in = ranges(least, tuned, most);
        std::vector<DynamicPluginTensorDesc> const out(outputs.size());
        return build_->configurePlugin(in.data(), static_cast<std::int32_t>(in.size()), out.data(),
                   static_cast<std::int32_t>(out.size())) == 0;
    }

    std::size_t workspace(std::vector<Sizes> const& most) override {
        std::vector<DynamicPluginTensorDesc> const in = ranges(most, most, most);
        return build_->getWorkspaceSize(in.data(), static_cast<std::int32_t>(in.size()), nullptr, 0);
    }

    // TensorRT writes the fields that a plugin gives; so does this, in its own way.
    std::string serialize() override {
        PluginFieldCollection const* const fields = runtime_->getFieldsToSerialize();
        std::string bytes;
        for (std::int32_t i = 0; i < fields->nbFields; ++i) {
            PluginField const& field = fields->fields[i];
            std::int32_t const header[] = {
                static_cast<std::int32_t>(std::strlen(field.name)), static_cast<std::int32_t>(field.type), field.length};
            bytes.append(reinterpret_cast<char const*>(header), sizeof(header));
            bytes.append(field.name);
            bytes.append(static_cast<char const*>(field.data), static_cast<std::size_t>(field.length));
        }
        return bytes;
    }

    std::unique_ptr<Plugin> clone() override {
        IPluginV3* const made = plugin_->clone();
        return made != nullptr ? std::make_unique<PluginV3>(made) : nullptr;
    }

    std::unique_ptr<Plugin> attach() override {
        Context context;
        IPluginV3* const made = runtime_->attachToContext(&context);
        return made != nullptr ? std::make_unique<PluginV3>(made) : nullptr;
    }

    bool shape_change(std::vector<Tensor> const& inputs, std::vector<Tensor> const& outputs) override {
        std::vector<PluginTensorDesc> const in = descs(inputs);
        std::vector<PluginTensorDesc> const out = descs(outputs);
        return runtime_->onShapeChange(in.data(), static_cast<std::int32_t>(in.size()), out.data(),
                   static_cast<std::int32_t>(out.size())) == 0;
    }

    void prepare(std::vector<Tensor> const& inputs, std::vector<Tensor> const& outputs) override {
        in_ = descs(inputs);
        out_ = descs(outputs);
    }

    int enqueue(std::vector<Tensor> const&, std::vector<Tensor> const&, void const* const* inputs, void* const* outputs,
        void* workspace, cudaStream_t stream) override {
        return runtime_->enqueue(in_.data(), out_.data(), inputs, outputs, workspace, stream);
    }

private:
    IPluginCapability* capability(PluginCapabilityType type, char const* kind) {
        IPluginCapability* const found = plugin_->getCapabilityInterface(type);
        if (found == nullptr || std::strcmp(found->getInterfaceInfo().kind, kind) != 0) throw std::runtime_error(kind);
        return found;
    }

    IPluginV3* plugin_;
    IPluginV3OneCore* core_;
    IPluginV3OneBuild* build_;
    IPluginV3OneRuntime* runtime_;
    std::vector<PluginTensorDesc> in_, out_;
};

IPluginCreatorV3One* creator_of(std::string const& kind) {
    return static_cast<IPluginCreatorV3One*>(global_registry().find({kind, "1", "cat2dog"}));
}

std::unique_ptr<Plugin> wrap(IPluginV3* plugin) {
    return plugin != nullptr ? std::make_unique<PluginV3>(plugin) : nullptr;
}

}  // namespace

Identity identity_of(Creator const& creator) {
    auto const& known = static_cast<IPluginCreatorV3One const&>(creator);
    return {known.getPluginName(), known.getPluginVersion(), known.getPluginNamespace()};
}

std::unique_ptr<Plugin> create(std::string const& kind, std::vector<Field> const& fields) {
    FieldList const list(fields);
    return wrap(creator_of(kind)->createPlugin("layer 7", &list.collection, TensorRTPhase::kBUILD));
}

std::unique_ptr<Plugin> deserialize(std::string const& kind, std::string const& serialized) {
    std::vector<Field> fields;
    for (std::size_t at = 0; at < serialized.size();) {
        std::int32_t header[3];
        std::memcpy(header, &serialized[at], sizeof(header));
        at += sizeof(header);
        Field field{serialized.substr(at, static_cast<std::size_t>(header[0])), static_cast<PluginFieldType>(header[1]), "",
            header[2]};
        at += field.name.size();
        field.bytes = serialized.substr(at, static_cast<std::size_t>(field.length));
        at += field.bytes.size();
        fields.push_back(field);
    }
    FieldList const list(fields);
    return wrap(creator_of(kind)->createPlugin("layer 7", &list.collection, TensorRTPhase::kRUNTIME));
}

std::string describe_creator(std::string const& kind) {
    IPluginCreatorV3One* const creator = creator_of(kind);
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
