// A plugin registry in little, with the behaviour seen in TensorRT 8.6.0 and TensorRT-RTX 1.7.1. The class it derives
// from differs between versions, so each host_v*.cpp includes this once.
#pragma once

#include <dlfcn.h>

#include <string>
#include <vector>

#include "host.h"

namespace host {

#if NV_TENSORRT_MAJOR >= 10
using Creator = nvinfer1::IPluginCreatorInterface;
constexpr char const* kGetCreators = "getCreators";
#else
using Creator = nvinfer1::IPluginCreator;
constexpr char const* kGetCreators = "getPluginCreators";
#endif

// Name, version and namespace of a creator, whose class only the host_v*.cpp knows.
struct Identity {
    std::string name, version, space;
    bool operator==(Identity const& other) const {
        return name == other.name && version == other.version && space == other.space;
    }
};
Identity identity_of(Creator const& creator);

class Registry final : public nvinfer1::IPluginRegistry {
public:
    struct Entry {
        Creator* creator;
        Identity identity;
    };
    std::vector<Entry> entries;
    int refused = 0;

    bool add(Creator& creator, char const* space) {
        Identity identity = identity_of(creator);
        identity.space = space;
        if (find(identity) != nullptr) {
            ++refused;
            return false;
        }
        entries.push_back({&creator, identity});
        return true;
    }
    bool remove(Creator const& creator) {
        for (std::size_t i = 0; i < entries.size(); ++i) {
            if (entries[i].creator == &creator) {
                entries.erase(entries.begin() + static_cast<std::ptrdiff_t>(i));
                return true;
            }
        }
        return false;
    }
    Creator* find(Identity const& identity) const {
        for (Entry const& entry : entries) {
            if (entry.identity == identity) return entry.creator;
        }
        return nullptr;
    }

    PluginLibraryHandle loadLibrary(nvinfer1::AsciiChar const* path) noexcept override {
        void* const handle = ::dlopen(path, RTLD_NOW | RTLD_LOCAL);
        auto const give = handle == nullptr
            ? nullptr
            : reinterpret_cast<Creator* const* (*)(std::int32_t&)>(::dlsym(handle, kGetCreators));
        if (give == nullptr) return nullptr;
        std::int32_t count = 0;
        Creator* const* const creators = give(count);
        if (creators == nullptr || count == 0) return nullptr;
        for (std::int32_t i = 0; i < count; ++i) {
            if (find(identity_of(*creators[i])) != nullptr) return nullptr;
        }
        for (std::int32_t i = 0; i < count; ++i) add(*creators[i], identity_of(*creators[i]).space.c_str());
        return handle;
    }
    void deregisterLibrary(PluginLibraryHandle) noexcept override {}
    bool isParentSearchEnabled() const override { return true; }
    void setParentSearchEnabled(bool) override {}
    void setErrorRecorder(nvinfer1::IErrorRecorder*) noexcept override {}
    nvinfer1::IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }

#if NV_TENSORRT_MAJOR <= 10
    bool registerCreator(nvinfer1::IPluginCreator& creator, nvinfer1::AsciiChar const* space) noexcept override {
        return add(creator, space);
    }
    nvinfer1::IPluginCreator* const* getPluginCreatorList(std::int32_t* count) const noexcept override {
        *count = 0;
        return nullptr;
    }
    nvinfer1::IPluginCreator* getPluginCreator(nvinfer1::AsciiChar const* name, nvinfer1::AsciiChar const* version,
        nvinfer1::AsciiChar const* space) noexcept override {
        return static_cast<nvinfer1::IPluginCreator*>(find({name, version, space}));
    }
    bool deregisterCreator(nvinfer1::IPluginCreator const& creator) noexcept override { return remove(creator); }
#endif
#if NV_TENSORRT_MAJOR >= 10
    bool registerCreator(Creator& creator, nvinfer1::AsciiChar const* space) noexcept override {
        return add(creator, space);
    }
    Creator* const* getAllCreators(std::int32_t* count) const noexcept override {
        *count = 0;
        return nullptr;
    }
    Creator* getCreator(nvinfer1::AsciiChar const* name, nvinfer1::AsciiChar const* version,
        nvinfer1::AsciiChar const* space) noexcept override {
        return find({name, version, space});
    }
    bool deregisterCreator(Creator const& creator) noexcept override { return remove(creator); }
    nvinfer1::IPluginResource* acquirePluginResource(
        nvinfer1::AsciiChar const*, nvinfer1::IPluginResource*) noexcept override {
        return nullptr;
    }
    std::int32_t releasePluginResource(nvinfer1::AsciiChar const*) noexcept override { return 1; }
    // Overrides only where the headers have it: from some 10.x on.
    virtual Creator* const* getAllCreatorsRecursive(std::int32_t* count) noexcept {
        *count = 0;
        return nullptr;
    }
#endif
};

// TensorRT's global one, as getPluginRegistry gives it. Never destroyed, like the creators in it.
inline Registry& global_registry() {
    static Registry& only = *new Registry;
    return only;
}

inline bool load_into(char const* path, bool global) {
    if (global) return global_registry().loadLibrary(path) != nullptr;
    static Registry& of_builder = *new Registry;
    return of_builder.loadLibrary(path) != nullptr;
}

inline std::vector<std::string> registered_names() {
    std::vector<std::string> names;
    for (Registry::Entry const& entry : global_registry().entries) {
        names.push_back(entry.identity.space + "::" + entry.identity.name + " " + entry.identity.version);
    }
    return names;
}

// The fields as a creator takes them; points into `fields`.
struct FieldList {
    explicit FieldList(std::vector<Field> const& fields) {
        for (Field const& field : fields) made.emplace_back(field.name.c_str(), field.bytes.data(), field.type, field.length);
        collection.nbFields = static_cast<std::int32_t>(made.size());
        collection.fields = made.data();
    }
    std::vector<nvinfer1::PluginField> made;
    nvinfer1::PluginFieldCollection collection{};
};

template <typename AnyCreator>
std::string describe(AnyCreator& creator) {
    std::string text = std::string(creator.getPluginName()) + " " + creator.getPluginVersion() + ":";
    nvinfer1::PluginFieldCollection const* const fields = creator.getFieldNames();
    for (std::int32_t i = 0; i < fields->nbFields; ++i) {
        text += std::string(" ") + fields->fields[i].name + "=" + std::to_string(static_cast<int>(fields->fields[i].type));
    }
    return text;
}

}  // namespace host
