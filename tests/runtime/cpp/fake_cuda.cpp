// Plays the CUDA driver on the host: device memory is the heap's, a stream works at once, and a graph is a list of what
// would have been done. Everything that is not given back at the end is told by the sanitizer.
#include "fake_gpu.h"

#include <cuda.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

struct CUstream_st {
    bool capturing = false;
    std::vector<std::function<void()>> steps;
};
struct CUgraph_st {
    std::vector<std::function<void()>> steps;
};
struct CUgraphExec_st {
    std::vector<std::function<void()>> steps;
};

namespace {

// "fail:NAME" in FAKE_GPU makes the call of that name fail.
bool fails(char const* name) {
    char const* const told = std::getenv("FAKE_GPU");
    return told != nullptr && std::string(told) == std::string("fail:") + name;
}

CUresult done(char const* name) { return fails(name) ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS; }

}  // namespace

void fake::on_stream(void* stream, std::function<void()> work) {
    auto* const its = static_cast<CUstream_st*>(stream);
    if (its->capturing) its->steps.push_back(std::move(work));
    else work();
}

extern "C" {

CUresult cuInit(unsigned) { return done("cuInit"); }
CUresult cuDeviceGet(CUdevice* device, int) {
    *device = 0;
    return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult, char const** text) {
    *text = "as the test wants it";
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char* name, int size, CUdevice) {
    std::strncpy(name, "Fake GPU", static_cast<std::size_t>(size));
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 9 : 0;
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
    *context = nullptr;
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }
CUresult cuMemAlloc_v2(CUdeviceptr* at, std::size_t bytes) {
    if (fails("cuMemAlloc")) return CUDA_ERROR_OUT_OF_MEMORY;
    *at = reinterpret_cast<CUdeviceptr>(std::malloc(bytes));
    return CUDA_SUCCESS;
}
CUresult cuMemFree_v2(CUdeviceptr at) {
    std::free(reinterpret_cast<void*>(at));
    return CUDA_SUCCESS;
}
CUresult cuMemHostAlloc(void** at, std::size_t bytes, unsigned) {
    *at = std::malloc(bytes);
    return CUDA_SUCCESS;
}
CUresult cuMemFreeHost(void* at) {
    std::free(at);
    return CUDA_SUCCESS;
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, void const* from, std::size_t bytes, CUstream stream) {
    fake::on_stream(stream, [=] { std::memcpy(reinterpret_cast<void*>(to), from, bytes); });
    return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
    fake::on_stream(stream, [=] { std::memcpy(to, reinterpret_cast<void*>(from), bytes); });
    return CUDA_SUCCESS;
}
CUresult cuStreamCreate(CUstream* made, unsigned) {
    *made = new CUstream_st;
    return CUDA_SUCCESS;
}
CUresult cuStreamDestroy_v2(CUstream stream) {
    delete stream;
    return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream stream) {
    return stream->capturing ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : done("cuStreamSynchronize");
}
CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode) {
    stream->capturing = true;
    return CUDA_SUCCESS;
}
CUresult cuStreamEndCapture(CUstream stream, CUgraph* graph) {
    stream->capturing = false;
    *graph = new CUgraph_st{std::move(stream->steps)};
    stream->steps.clear();
    return CUDA_SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(CUgraphExec* made, CUgraph graph, unsigned long long) {
    if (fails("cuGraphInstantiate")) return CUDA_ERROR_OUT_OF_MEMORY;
    *made = new CUgraphExec_st{graph->steps};
    return CUDA_SUCCESS;
}
CUresult cuGraphLaunch(CUgraphExec graph, CUstream) {
    for (auto const& step : graph->steps) step();
    return CUDA_SUCCESS;
}
CUresult cuGraphDestroy(CUgraph graph) {
    delete graph;
    return CUDA_SUCCESS;
}
CUresult cuGraphExecDestroy(CUgraphExec graph) {
    delete graph;
    return CUDA_SUCCESS;
}

}  // extern "C"
