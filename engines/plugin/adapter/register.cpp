// How TensorRT comes to know the creators, and what this library exports.
//
// Two ways lead here, and a library cannot tell which one it is on:
//
// 1. It is loaded as any shared object: ctypes, dlopen, LD_PRELOAD, trtexec --staticPlugins, polygraphy --plugins, Triton's
//    plugins=. Nobody calls anything afterwards, so a static object registers the creators in TensorRT's global registry
//    when the library is loaded, in namespace "cat2dog" (REGISTER_TENSORRT_PLUGIN knows only namespace "").
// 2. A registry loads it: IPluginRegistry::loadLibrary, trtexec --dynamicPlugins, a library carried inside an engine.
//    TensorRT opens it (so the static object runs as well), then asks getCreators (getPluginCreators in 8.6) and
//    registers what it gets in the registry that was asked, in the namespace that the creators name.
//
// Seen with the registries of TensorRT 8.6.0 and TensorRT-RTX 1.7.1: loadLibrary fails where the asked registry itself
// holds the name already, and where a library has no creators to give; what a parent registry holds does not matter. So
// a global registry would refuse this library because of its own static object. Therefore the first call of getCreators
// takes back what the static object did. It does not where somebody called cat2dog_register, which makes the
// registration firm: then a builder's or runtime's registry can still load the library (its parent does not matter), and
// only a second registration in the global one is refused, rightly. deregisterLibrary calls getCreators too; by then
// there is nothing to take back.
//
// The library is linked with -z nodelete: the registry, plugins and engines hold pointers into it, which dlclose would
// leave dangling. Creators are never destroyed and never deregistered at the end of a process, because the registry may
// be gone by then. Loading it twice by one path gives the same copy; a copy by another path finds its names taken, and
// lets it be, since the first one serves.
//
// TensorRT is looked for, not linked to (see tensorrt_library.h). Where it is not loaded yet, loading this library does
// nothing, and cat2dog_register does it later. An LD_PRELOADed library comes before any TensorRT and nobody knows of
// cat2dog_register there, so then TensorRT is loaded, as a library that is linked to it would have done.
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <mutex>

#include "creators.h"
#include "log.h"
#include "tensorrt_library.h"

#define CAT2DOG_EXPORT extern "C" __attribute__((visibility("default")))

namespace cat2dog {
namespace {

enum class Registration { kNone, kAtLoad, kFirm };

std::mutex mutex;
Registration registration = Registration::kNone;

bool has_creator(nvinfer1::IPluginRegistry& registry, char const* kind) noexcept {
#if NV_TENSORRT_MAJOR >= 10
    return registry.getCreator(kind, kVersion, kNamespace) != nullptr;
#else
    return registry.getPluginCreator(kind, kVersion, kNamespace) != nullptr;
#endif
}

bool register_all(nvinfer1::IPluginRegistry& registry) noexcept {
    bool done = true;
    for (Creator* creator : creators()) done = registry.registerCreator(*creator, kNamespace) && done;
    return done;
}

bool is_preloaded() noexcept {
    char const* const preloads = std::getenv("LD_PRELOAD");
    Dl_info self{};
    if (preloads == nullptr || ::dladdr(reinterpret_cast<void const*>(&creators), &self) == 0) return false;
    char const* const slash = std::strrchr(self.dli_fname, '/');
    return std::strstr(preloads, slash != nullptr ? slash + 1 : self.dli_fname) != nullptr;
}

void register_at_load() noexcept {
    std::lock_guard<std::mutex> const lock(mutex);
    TensorRTLibrary const found = find_tensorrt(is_preloaded());
    if (found.registry != nullptr && register_all(*found.registry)) registration = Registration::kAtLoad;
}

struct AtLoad {
    AtLoad() noexcept { register_at_load(); }
} const at_load;

int register_firmly() noexcept {
    std::lock_guard<std::mutex> const lock(mutex);
    if (registration == Registration::kNone) {
        TensorRTLibrary const found = find_tensorrt(false);
        if (found.registry == nullptr) {
            log_error(found.reason);
            return 1;
        }
        if (!register_all(*found.registry)) {
            for (char const* kind : kNodeNames) {
                if (has_creator(*found.registry, kind)) continue;
                log_error("TensorRT's registry refuses the plugins of cat2dog");
                return 2;
            }
            return 0;  // another copy of this library, or loadLibrary, was first
        }
    }
    registration = Registration::kFirm;
    return 0;
}

Creator* const* give_creators(int32_t& count) noexcept {
    std::lock_guard<std::mutex> const lock(mutex);
    if (registration == Registration::kAtLoad) {
        TensorRTLibrary const found = find_tensorrt(false);
        for (Creator* creator : creators()) {
            if (found.registry != nullptr) found.registry->deregisterCreator(*creator);
        }
        registration = Registration::kNone;
    }
    count = static_cast<int32_t>(creators().size());
    return creators().data();
}

}  // namespace
}  // namespace cat2dog

// Registers the creators in TensorRT's global registry, for a program that loaded this library before TensorRT, or that
// wants to be sure. 0: they are there; 1: no fitting TensorRT is loaded; 2: its registry refuses them. May be called again.
CAT2DOG_EXPORT int cat2dog_register() noexcept { return cat2dog::register_firmly(); }

// What IPluginRegistry::loadLibrary looks for.
CAT2DOG_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) noexcept { cat2dog::set_logger_finder(finder); }
#if NV_TENSORRT_MAJOR >= 9
CAT2DOG_EXPORT cat2dog::Creator* const* getCreators(int32_t& count) noexcept {
#else
CAT2DOG_EXPORT cat2dog::Creator* const* getPluginCreators(int32_t& count) noexcept {
#endif
    return cat2dog::give_creators(count);
}
