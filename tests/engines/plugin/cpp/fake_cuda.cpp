#include "fake_cuda.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#define FAKE_EXPORT __attribute__((visibility("default")))

// cuda.h may declare newer versions under these names by macros; a driver exports both.
#undef cuCtxPushCurrent
#undef cuCtxPopCurrent

namespace {

struct FakeModule;

struct FakeFunction {
    FakeModule* module;
    std::string name;
    std::vector<int> sizes;
    int most_shared = 48 * 1024;
};

struct FakeModule {
    int number;
    int context;
    std::map<std::string, FakeFunction> functions;
};

constexpr int kMostLaunches = 65536;

std::mutex mutex;
FakeCounts counts{};
FakeLaunch* launches = static_cast<FakeLaunch*>(std::calloc(kMostLaunches, sizeof(FakeLaunch)));
int capability[2] = {9, 0};
bool failing = false;
thread_local int current = 1;
thread_local std::vector<int> stack;
thread_local bool capturing = false;

CUcontext context_of(int number) { return reinterpret_cast<CUcontext>(static_cast<std::uintptr_t>(number)); }
int number_of(CUcontext context) { return static_cast<int>(reinterpret_cast<std::uintptr_t>(context)); }

}  // namespace

extern "C" {

FAKE_EXPORT void fake_reset() {
    std::lock_guard<std::mutex> const lock(mutex);
    counts = {};
}
FAKE_EXPORT FakeCounts fake_counts() {
    std::lock_guard<std::mutex> const lock(mutex);
    return counts;
}
FAKE_EXPORT FakeLaunch const* fake_launch(int index) { return &launches[index]; }
FAKE_EXPORT void fake_set_capability(int major, int minor) {
    capability[0] = major;
    capability[1] = minor;
}
FAKE_EXPORT void fake_set_context(int number) { current = number; }
FAKE_EXPORT void fake_fail_launches(bool fail) { failing = fail; }

FAKE_EXPORT CUresult cuInit(unsigned) { return CUDA_SUCCESS; }
FAKE_EXPORT CUresult cuGetErrorName(CUresult error, char const** name) {
    *name = error == CUDA_ERROR_INVALID_IMAGE ? "CUDA_ERROR_INVALID_IMAGE" : "CUDA_ERROR_OF_THE_FAKE";
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuGetErrorString(CUresult, char const** text) {
    *text = "the fake driver's words";
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuCtxGetCurrent(CUcontext* context) {
    *context = context_of(current);
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuCtxPushCurrent_v2(CUcontext context) {
    std::lock_guard<std::mutex> const lock(mutex);
    ++counts.context_depth;
    stack.push_back(current);
    current = number_of(context);
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuCtxPopCurrent_v2(CUcontext* context) {
    std::lock_guard<std::mutex> const lock(mutex);
    --counts.context_depth;
    *context = context_of(current);
    current = stack.back();
    stack.pop_back();
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuCtxGetDevice(CUdevice* device) {
    *device = 0;
    return current == 0 ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    *value = capability[attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 0 : 1];
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuModuleLoadData(CUmodule* module, void const* image) {
    auto const* const text = static_cast<char const*>(image);
    if (std::strncmp(text, "FAKE\n", 5) != 0) return CUDA_ERROR_INVALID_IMAGE;
    std::lock_guard<std::mutex> const lock(mutex);
    auto* const made = new FakeModule{++counts.loads, current, {}};
    std::istringstream lines(std::string(text + 5, std::strstr(text, "end") - text - 5));
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        FakeFunction function{made, "", {}};
        words >> function.name;
        for (int size = 0; words >> size;) function.sizes.push_back(size);
        made->functions.emplace(function.name, function);
    }
    *module = reinterpret_cast<CUmodule>(made);
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuModuleUnload(CUmodule module) {
    std::lock_guard<std::mutex> const lock(mutex);
    ++counts.unloads;
    auto* const unloaded = reinterpret_cast<FakeModule*>(module);
    CUresult const result = unloaded->context == current ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
    delete unloaded;
    return result;
}
FAKE_EXPORT CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, char const* name) {
    auto& functions = reinterpret_cast<FakeModule*>(module)->functions;
    auto const found = functions.find(name);
    if (found == functions.end()) return CUDA_ERROR_NOT_FOUND;
    *function = reinterpret_cast<CUfunction>(&found->second);
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuFuncLoad(CUfunction) { return CUDA_SUCCESS; }
FAKE_EXPORT CUresult cuFuncGetAttribute(int* value, CUfunction_attribute, CUfunction function) {
    *value = reinterpret_cast<FakeFunction*>(function)->most_shared;
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    std::lock_guard<std::mutex> const lock(mutex);
    ++counts.attribute_sets;
    if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
        if (value > 227 * 1024) return CUDA_ERROR_INVALID_VALUE;
        reinterpret_cast<FakeFunction*>(function)->most_shared = value;
    }
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuFuncSetCacheConfig(CUfunction, CUfunc_cache) { return CUDA_SUCCESS; }

FAKE_EXPORT CUresult cuLaunchKernelEx(
    CUlaunchConfig const* config, CUfunction given, void** arguments, void** extra) {
    auto const* const function = reinterpret_cast<FakeFunction*>(given);
    if (failing || extra != nullptr) return CUDA_ERROR_LAUNCH_FAILED;
    if (function->module->context != current) return CUDA_ERROR_INVALID_CONTEXT;
    if (static_cast<int>(config->sharedMemBytes) > function->most_shared) return CUDA_ERROR_INVALID_VALUE;
    std::lock_guard<std::mutex> const lock(mutex);
    if (counts.launches == kMostLaunches) return CUDA_ERROR_OUT_OF_MEMORY;
    FakeLaunch& launch = launches[counts.launches++];
    std::memset(&launch, 0, sizeof(launch));
    std::strncpy(launch.kernel, function->name.c_str(), sizeof(launch.kernel) - 1);
    launch.module = function->module->number;
    launch.context = current;
    launch.grid[0] = config->gridDimX, launch.grid[1] = config->gridDimY, launch.grid[2] = config->gridDimZ;
    launch.block[0] = config->blockDimX, launch.block[1] = config->blockDimY, launch.block[2] = config->blockDimZ;
    launch.shared = config->sharedMemBytes;
    launch.most_shared = static_cast<unsigned>(function->most_shared);
    launch.stream = config->hStream;
    launch.capturing = capturing;
    launch.cluster[0] = launch.cluster[1] = launch.cluster[2] = 1;
    for (unsigned i = 0; i < config->numAttrs; ++i) {
        CUlaunchAttribute const& attribute = config->attrs[i];
        if (attribute.id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) {
            launch.cluster[0] = attribute.value.clusterDim.x;
            launch.cluster[1] = attribute.value.clusterDim.y;
            launch.cluster[2] = attribute.value.clusterDim.z;
        } else if (attribute.id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION) {
            launch.programmatic = attribute.value.programmaticStreamSerializationAllowed != 0;
        }
    }
    launch.arguments = static_cast<int>(function->sizes.size());
    for (int i = 0; i < launch.arguments; ++i) {
        std::memcpy(launch.values[i], arguments[i], static_cast<std::size_t>(function->sizes[static_cast<std::size_t>(i)]));
    }
    return CUDA_SUCCESS;
}

#ifndef FAKE_OLD_DRIVER
FAKE_EXPORT CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
    cuuint64_t const* dims, cuuint64_t const* strides, cuuint32_t const* box, cuuint32_t const* steps,
    CUtensorMapInterleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
    if (reinterpret_cast<std::uintptr_t>(map) % 64 != 0) return CUDA_ERROR_INVALID_VALUE;
    if (reinterpret_cast<std::uintptr_t>(address) % 16 != 0) return CUDA_ERROR_INVALID_VALUE;
    FakeMap made{};
    made.address = address;
    made.type = type;
    made.rank = static_cast<int>(rank);
    made.swizzle = swizzle;
    for (cuuint32_t i = 0; i < rank; ++i) {
        made.dims[i] = dims[i];
        made.box[i] = box[i];
        if (i + 1 < rank) made.strides[i] = strides[i];
        if (steps[i] != 1 || dims[i] == 0) return CUDA_ERROR_INVALID_VALUE;
    }
    std::memset(map, 0, sizeof(*map));
    std::memcpy(map, &made, sizeof(made));
    return CUDA_SUCCESS;
}
#endif

// What the host uses itself to run on a GPU.
FAKE_EXPORT CUresult cuDeviceGet(CUdevice* device, int) {
    *device = 0;
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuDeviceGetName(char* name, int length, CUdevice) {
    std::strncpy(name, "fake GPU", static_cast<std::size_t>(length));
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
    *context = context_of(1);
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
FAKE_EXPORT CUresult cuCtxSetCurrent(CUcontext context) {
    current = number_of(context);
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuMemAlloc_v2(CUdeviceptr* pointer, std::size_t bytes) {
    *pointer = reinterpret_cast<CUdeviceptr>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuMemFree_v2(CUdeviceptr pointer) {
    std::free(reinterpret_cast<void*>(pointer));
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr to, void const* from, std::size_t bytes) {
    std::memcpy(reinterpret_cast<void*>(to), from, bytes);
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, std::size_t bytes) {
    std::memcpy(to, reinterpret_cast<void const*>(from), bytes);
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, std::size_t bytes, CUstream) {
    std::memset(reinterpret_cast<void*>(to), value, bytes);
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuStreamCreate(CUstream* stream, unsigned) {
    *stream = reinterpret_cast<CUstream>(std::malloc(1));
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuStreamDestroy_v2(CUstream stream) {
    std::free(reinterpret_cast<void*>(stream));
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuStreamSynchronize(CUstream) {
    std::lock_guard<std::mutex> const lock(mutex);
    ++counts.waits;
    return capturing ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuStreamBeginCapture_v2(CUstream, CUstreamCaptureMode) {
    capturing = true;
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuStreamEndCapture(CUstream, CUgraph* graph) {
    capturing = false;
    *graph = nullptr;
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec* graph, CUgraph, unsigned long long) {
    *graph = nullptr;
    return CUDA_SUCCESS;
}
FAKE_EXPORT CUresult cuGraphLaunch(CUgraphExec, CUstream) { return CUDA_SUCCESS; }
FAKE_EXPORT CUresult cuGraphExecDestroy(CUgraphExec) { return CUDA_SUCCESS; }
FAKE_EXPORT CUresult cuGraphDestroy(CUgraph) { return CUDA_SUCCESS; }
}
