// The plugin as TensorRT 8.6 knows it: IPluginV2DynamicExt.
//
// TensorRT calls createPlugin or deserializePlugin, then initialize once for each engine; execution contexts get clones,
// which need not be initialized again, so a clone shares the loaded kernels of the plugin it comes from. The headers do
// not say that a clone is made after initialize, so attachToContext loads what is not loaded by then.
#include <cstring>

#include "../core/error.h"
#include "../core/fnv.h"
#include "creators.h"
#include "node.h"

namespace cat2dog {
namespace {

using namespace nvinfer1;  // NOLINT: an adapter speaks TensorRT's language throughout

// What stands before the two fields in a serialized plugin, in the byte order of the machine, as engines are anyway.
struct Header {
    char magic[8] = {'c', 'a', 't', '2', 'd', 'o', 'g', '1'};
    std::uint64_t text_bytes = 0;
    std::uint64_t image_bytes = 0;
    std::uint64_t fnv = 0;  // of all that follows
};

class PluginV2 final : public IPluginV2DynamicExt {
public:
    explicit PluginV2(Node node) : node_(std::move(node)) {}

    AsciiChar const* getPluginType() const noexcept override { return node_.kind; }
    AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
    AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }
    // The namespace is part of what the plugin is; TensorRT may say another where it was told to, and lookups go by ours.
    void setPluginNamespace(AsciiChar const*) noexcept override {}
    int32_t getNbOutputs() const noexcept override { return static_cast<int32_t>(node_.plan().outputs.size()); }
    void destroy() noexcept override { delete this; }

    IPluginV2DynamicExt* clone() const noexcept override {
        return guarded<IPluginV2DynamicExt*>(node_, nullptr, [&] { return new PluginV2(node_); });
    }

    DataType getOutputDataType(int32_t index, DataType const*, int32_t) const noexcept override {
        return guarded(node_, DataType::kFLOAT, [&] { return node_.output_type(index); });
    }

    DimsExprs getOutputDimensions(
        int32_t index, DimsExprs const* inputs, int32_t count, IExprBuilder& builder) noexcept override {
        DimsExprs none{};
        none.nbDims = -1;
        return guarded(node_, none, [&] { return node_.output_dims(index, inputs, count, builder); });
    }

    bool supportsFormatCombination(
        int32_t position, PluginTensorDesc const* tensors, int32_t inputs, int32_t outputs) noexcept override {
        return guarded(node_, false, [&] { return node_.supports(position, tensors[position], inputs, outputs); });
    }

    // It can refuse nothing; a build calls it with ranges, an execution context with the shapes to come, which enqueue
    // checks. So only what no shape can mend is said here, early.
    void configurePlugin(DynamicPluginTensorDesc const* inputs, int32_t input_count, DynamicPluginTensorDesc const*,
        int32_t) noexcept override {
        guarded(node_, 0, [&] {
            std::array<Dims, kMostTensors> largest;
            bool known = input_count <= kMostTensors;
            for (int32_t i = 0; known && i < input_count; ++i) {
                largest[static_cast<std::size_t>(i)] = inputs[i].max;
                for (int32_t j = 0; j < inputs[i].max.nbDims; ++j) known = known && inputs[i].max.d[j] >= 0;
            }
            if (known) node_.check_inputs(largest.data(), input_count);
            return 0;
        });
    }

    size_t getWorkspaceSize(
        PluginTensorDesc const* inputs, int32_t count, PluginTensorDesc const*, int32_t) const noexcept override {
        return guarded(node_, size_t{0}, [&]() -> size_t {
            std::array<Dims, kMostTensors> dims;
            if (count > kMostTensors) fail("%d inputs, at most %d", count, kMostTensors);
            for (int32_t i = 0; i < count; ++i) dims[static_cast<std::size_t>(i)] = inputs[i].dims;
            return node_.workspace(dims.data(), count);
        });
    }

    int32_t initialize() noexcept override {
        return guarded(node_, 1, [&] {
            node_.load();
            return 0;
        });
    }

    void terminate() noexcept override { node_.kernels.reset(); }

    // It can refuse nothing; where loading fails, that is logged, and enqueue says so again.
    void attachToContext(cudnnContext*, cublasContext*, IGpuAllocator*) noexcept override {
        guarded(node_, 0, [&] {
            if (node_.kernels == nullptr) node_.load();
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

    size_t getSerializationSize() const noexcept override {
        return sizeof(Header) + node_.program->text.size() + node_.program->images.size();
    }

    void serialize(void* buffer) const noexcept override {
        auto* const bytes = static_cast<unsigned char*>(buffer);
        std::string const& text = node_.program->text;
        std::string const& images = node_.program->images;
        Header header;
        header.text_bytes = text.size();
        header.image_bytes = images.size();
        std::memcpy(bytes + sizeof(Header), text.data(), text.size());
        std::memcpy(bytes + sizeof(Header) + text.size(), images.data(), images.size());
        header.fnv = fnv1a(bytes + sizeof(Header), text.size() + images.size());
        std::memcpy(bytes, &header, sizeof(Header));
    }

private:
    Node node_;
};

std::shared_ptr<Program const> read_serialized(void const* data, size_t length) {
    auto const* const bytes = static_cast<unsigned char const*>(data);
    Header const expected;
    Header header;
    if (bytes == nullptr || length < sizeof(Header)) fail("a serialized plugin of %zu bytes: the engine is damaged", length);
    std::memcpy(&header, bytes, sizeof(Header));
    if (std::memcmp(header.magic, expected.magic, sizeof(header.magic)) != 0) {
        fail("a serialized plugin of another version of this library: build the engine again");
    }
    size_t const rest = length - sizeof(Header);
    if (header.text_bytes > rest || header.image_bytes != rest - header.text_bytes ||
        header.fnv != fnv1a(bytes + sizeof(Header), rest)) {
        fail("the serialized plugin does not have its checksum: the engine is damaged");
    }
    auto const* const text = reinterpret_cast<char const*>(bytes + sizeof(Header));
    return Program::make({text, header.text_bytes}, {text + header.text_bytes, header.image_bytes});
}

class CreatorV2 final : public IPluginCreator {
public:
    explicit CreatorV2(char const* kind) : kind_(kind) {}

    AsciiChar const* getPluginName() const noexcept override { return kind_; }
    AsciiChar const* getPluginVersion() const noexcept override { return kVersion; }
    AsciiChar const* getPluginNamespace() const noexcept override { return kNamespace; }
    void setPluginNamespace(AsciiChar const*) noexcept override {}
    PluginFieldCollection const* getFieldNames() noexcept override { return node_fields(); }

    IPluginV2* createPlugin(AsciiChar const* layer, PluginFieldCollection const* fields) noexcept override {
        return make(layer, [&] { return read_fields(fields); });
    }

    IPluginV2* deserializePlugin(AsciiChar const* layer, void const* data, size_t length) noexcept override {
        return make(layer, [&] { return read_serialized(data, length); });
    }

private:
    template <typename Read>
    IPluginV2* make(AsciiChar const* layer, Read&& read) noexcept {
        char const* const name = layer != nullptr ? layer : "";
        return guarded<IPluginV2*>(kind_, name, nullptr, [&] { return new PluginV2(Node{kind_, name, read(), nullptr}); });
    }

    char const* kind_;
};

}  // namespace

Creators const& creators() noexcept {
    // Never destroyed: TensorRT's registry may be asked for them until the process ends.
    static Creators const& all = *new Creators{new CreatorV2(kNodeNames[0]),
        new CreatorV2(kNodeNames[1]), new CreatorV2(kNodeNames[2])};
    return all;
}

}  // namespace cat2dog
