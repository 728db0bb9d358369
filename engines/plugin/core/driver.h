// The CUDA driver, found when it is first needed: the library itself loads on a machine without one.
#pragma once

#include <cuda.h>

#if CUDA_VERSION < 12000
#error "CUDA headers older than 12.0: tensor maps are not in them"
#endif

namespace cat2dog {

// Entry points by the names that libcuda.so.1 exports. `decltype` keeps each to its declaration in cuda.h.
struct Driver {
    decltype(&::cuInit) init;
    decltype(&::cuGetErrorName) get_error_name;
    decltype(&::cuGetErrorString) get_error_string;
    decltype(&::cuCtxGetCurrent) context_current;
    decltype(&::cuCtxPushCurrent_v2) context_push;
    decltype(&::cuCtxPopCurrent_v2) context_pop;
    decltype(&::cuCtxGetDevice) context_device;
    decltype(&::cuDeviceGetAttribute) device_attribute;
    decltype(&::cuModuleLoadData) module_load;
    decltype(&::cuModuleUnload) module_unload;
    decltype(&::cuModuleGetFunction) module_function;
    decltype(&::cuFuncGetAttribute) function_attribute;
    decltype(&::cuFuncSetAttribute) set_function_attribute;
    decltype(&::cuFuncSetCacheConfig) set_cache_config;
    decltype(&::cuLaunchKernelEx) launch;
    // Null where the driver is too old for them.
    decltype(&::cuTensorMapEncodeTiled) encode_tiled;
    CUresult (*function_load)(CUfunction);

    // Raises Error, with the driver's words, unless `result` is a success of `what`.
    void check(CUresult result, char const* what) const;
};

// Loads libcuda.so.1, or what the environment variable CAT2DOG_LIBCUDA names, once per process. Raises Error where there
// is none or it is older than 11.8.
Driver const& driver();

}  // namespace cat2dog
