#include "driver.h"

#include <dlfcn.h>

#include <cstdlib>

#include "error.h"

namespace cat2dog {
namespace {

template <typename Function>
void find(void* library, char const* name, Function& function, bool needed = true) {
    function = reinterpret_cast<Function>(::dlsym(library, name));
    if (function == nullptr && needed) {
        fail("the CUDA driver has no %s, expected driver 520 (CUDA 11.8) or newer: update it", name);
    }
}

Driver load() {
    char const* const named = std::getenv("CAT2DOG_LIBCUDA");
    char const* const name = named != nullptr && *named != '\0' ? named : "libcuda.so.1";
    // Never closed: modules may live until the process ends.
    void* const library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) fail("no CUDA driver: %s", ::dlerror());
    Driver found{};
    find(library, "cuInit", found.init);
    find(library, "cuGetErrorName", found.get_error_name);
    find(library, "cuGetErrorString", found.get_error_string);
    find(library, "cuCtxGetCurrent", found.context_current);
    find(library, "cuCtxPushCurrent_v2", found.context_push);
    find(library, "cuCtxPopCurrent_v2", found.context_pop);
    find(library, "cuCtxGetDevice", found.context_device);
    find(library, "cuDeviceGetAttribute", found.device_attribute);
    find(library, "cuModuleLoadData", found.module_load);
    find(library, "cuModuleUnload", found.module_unload);
    find(library, "cuModuleGetFunction", found.module_function);
    find(library, "cuFuncGetAttribute", found.function_attribute);
    find(library, "cuFuncSetAttribute", found.set_function_attribute);
    find(library, "cuFuncSetCacheConfig", found.set_cache_config);
    find(library, "cuLaunchKernelEx", found.launch);
    find(library, "cuTensorMapEncodeTiled", found.encode_tiled, false);
    find(library, "cuFuncLoad", found.function_load, false);
    found.check(found.init(0), "cuInit");
    return found;
}

}  // namespace

void Driver::check(CUresult result, char const* what) const {
    if (result == CUDA_SUCCESS) return;
    char const* name = nullptr;
    char const* text = nullptr;
    get_error_name(result, &name);
    get_error_string(result, &text);
    fail("%s: %s (%s)", what, name != nullptr ? name : "an unknown error", text != nullptr ? text : "no description");
}

Driver const& driver() {
    // A failure throws and leaves the static unmade, so the next caller tries again.
    static Driver const loaded = load();
    return loaded;
}

}  // namespace cat2dog
