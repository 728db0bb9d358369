#include "tensorrt_library.h"

#include <dlfcn.h>

namespace cat2dog {
namespace {

#define CAT2DOG_TEXT_OF(x) #x
#define CAT2DOG_TEXT(x) CAT2DOG_TEXT_OF(x)
#define CAT2DOG_MAJOR CAT2DOG_TEXT(NV_TENSORRT_MAJOR)

// The whole runtime first; the lean one deserializes version-compatible engines and has a registry too.
constexpr char const* kLibraries[] = {"libnvinfer.so." CAT2DOG_MAJOR, "libnvinfer_lean.so." CAT2DOG_MAJOR};

void* find_library(bool load) noexcept {
    for (char const* name : kLibraries) {
        // RTLD_NOLOAD finds a library by its soname even where it was loaded RTLD_LOCAL, as Python's package does.
        void* const library = ::dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
        if (library != nullptr) return library;
    }
    // RTLD_GLOBAL, because that is what linking to it would have meant.
    return load ? ::dlopen(kLibraries[0], RTLD_LAZY | RTLD_GLOBAL) : nullptr;
}

void* find_symbol(void* library, char const* name) noexcept {
    // RTLD_DEFAULT is for a TensorRT that is linked into the program.
    return ::dlsym(library != nullptr ? library : RTLD_DEFAULT, name);
}

// 8601 stands for 8.6.1, 101401 for 10.14.1; 10701 is TensorRT-RTX 1.7.1.
int major_of(int version) noexcept { return version >= 10000 ? version / 10000 : version / 1000; }

// One handle may leak: TensorRT stays loaded as long as its registry points into this library, which is always.
struct Found {
    void* library;
    bool fits;
};

Found find(bool load, char const*& reason) noexcept {
    void* const library = find_library(load);
    auto const version = reinterpret_cast<int (*)()>(find_symbol(library, "getInferLibVersion"));
    if (version == nullptr) {
        reason = "cat2dog plugin: TensorRT " CAT2DOG_MAJOR " is not loaded in this process";
        return {library, false};
    }
    // Another major version's registry has another layout; TensorRT-RTX, whose version is 1, cannot run custom plugins.
    bool const fits = major_of(version()) == NV_TENSORRT_MAJOR;
    if (!fits) {
        reason = "cat2dog plugin: the TensorRT in this process is not version " CAT2DOG_MAJOR
                 ", which this library is built for";
    }
    return {library, fits};
}

}  // namespace

TensorRTLibrary find_tensorrt(bool load) noexcept {
    TensorRTLibrary found;
    Found const there = find(load, found.reason);
    if (!there.fits) return found;
    auto const get = reinterpret_cast<nvinfer1::IPluginRegistry* (*)()>(find_symbol(there.library, "getPluginRegistry"));
    found.registry = get != nullptr ? get() : nullptr;
    if (found.registry == nullptr) found.reason = "cat2dog plugin: the TensorRT in this process has no plugin registry";
    return found;
}

nvinfer1::ILogger* tensorrt_logger() noexcept {
    char const* reason = nullptr;
    Found const there = find(false, reason);
    if (!there.fits) return nullptr;
    auto const get = reinterpret_cast<nvinfer1::ILogger* (*)()>(find_symbol(there.library, "getLogger"));
    return get != nullptr ? get() : nullptr;
}

}  // namespace cat2dog
