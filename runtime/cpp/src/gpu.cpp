#include "gpu.h"

#include <cstdlib>
#include <utility>

#include "error.h"

namespace cat2dog {
namespace {

std::string driver_name() {
    char const* const named = std::getenv("CAT2DOG_LIBCUDA");
    return named != nullptr ? named : "libcuda.so.1";
}

}  // namespace

Cuda::Cuda() : library_({driver_name()}, "the CUDA driver", "engines need an NVIDIA GPU; an ONNX file runs without") {
#define CAT2DOG_FIND(member, name) member = library_.symbol<decltype(member)>(#name)
    CAT2DOG_FIND(get_error_string, cuGetErrorString);
    CAT2DOG_FIND(device_name, cuDeviceGetName);
    CAT2DOG_FIND(device_attribute, cuDeviceGetAttribute);
    CAT2DOG_FIND(retain, cuDevicePrimaryCtxRetain);
    CAT2DOG_FIND(release, cuDevicePrimaryCtxRelease_v2);
    CAT2DOG_FIND(set_current, cuCtxSetCurrent);
    CAT2DOG_FIND(allocate, cuMemAlloc_v2);
    CAT2DOG_FIND(free, cuMemFree_v2);
    CAT2DOG_FIND(allocate_host, cuMemHostAlloc);
    CAT2DOG_FIND(free_host, cuMemFreeHost);
    CAT2DOG_FIND(copy_in, cuMemcpyHtoDAsync_v2);
    CAT2DOG_FIND(copy_out, cuMemcpyDtoHAsync_v2);
    CAT2DOG_FIND(stream_create, cuStreamCreate);
    CAT2DOG_FIND(stream_destroy, cuStreamDestroy_v2);
    CAT2DOG_FIND(synchronize, cuStreamSynchronize);
    CAT2DOG_FIND(begin_capture, cuStreamBeginCapture_v2);
    CAT2DOG_FIND(end_capture, cuStreamEndCapture);
    CAT2DOG_FIND(instantiate, cuGraphInstantiateWithFlags);
    CAT2DOG_FIND(launch, cuGraphLaunch);
    CAT2DOG_FIND(destroy_graph, cuGraphDestroy);
    CAT2DOG_FIND(destroy_executable, cuGraphExecDestroy);
#undef CAT2DOG_FIND
    auto const init = library_.symbol<decltype(&::cuInit)>("cuInit");
    auto const get = library_.symbol<decltype(&::cuDeviceGet)>("cuDeviceGet");
    check(init(0), "starting CUDA");
    check(get(&device_, 0), "finding a GPU");
    // The primary context is the one that TensorRT uses through CUDA's runtime.
    CUcontext context = nullptr;
    check(retain(&context, device_), "taking the GPU");
    check(set_current(context), "taking the GPU");
}

Cuda::~Cuda() { release(device_); }

std::string Cuda::gpu_name() const {
    char name[256] = {};
    check(device_name(name, sizeof name, device_), "asking for the GPU's name");
    return name;
}

std::string Cuda::compute_capability() const {
    int major = 0;
    int minor = 0;
    check(device_attribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device_), "asking for the compute capability");
    check(device_attribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device_), "asking for the compute capability");
    return std::to_string(major) + "." + std::to_string(minor);
}

void Cuda::check(CUresult result, char const* what) const {
    if (result == CUDA_SUCCESS) return;
    char const* text = nullptr;
    if (get_error_string(result, &text) != CUDA_SUCCESS || text == nullptr) text = "unknown error";
    throw failed(std::string(what) + " failed: CUDA error " + std::to_string(static_cast<int>(result)) + ", " + text);
}

Buffer::Buffer(Cuda const& cuda, std::size_t bytes) : cuda_(&cuda), bytes_(bytes) {
    cuda.check(cuda.allocate_host(&host_, bytes, 0), "taking pinned memory");
    CUresult const result = cuda.allocate(&device_, bytes);
    if (result != CUDA_SUCCESS) cuda.free_host(host_);
    cuda.check(result, "taking GPU memory");
}

Buffer::Buffer(Buffer&& other) noexcept
    : cuda_(other.cuda_), bytes_(other.bytes_), host_(std::exchange(other.host_, nullptr)), device_(std::exchange(other.device_, 0)) {}

Buffer::~Buffer() {
    if (host_ == nullptr) return;
    cuda_->free(device_);
    cuda_->free_host(host_);
}

Stream::Stream(Cuda const& cuda) : cuda_(cuda) {
    cuda.check(cuda.stream_create(&stream_, CU_STREAM_NON_BLOCKING), "making a stream");
}

Stream::~Stream() {
    if (executable_ != nullptr) cuda_.destroy_executable(executable_);
    cuda_.stream_destroy(stream_);
}

void Stream::synchronize() const { cuda_.check(cuda_.synchronize(stream_), "running the engine"); }

void Stream::begin() {
    cuda_.check(cuda_.begin_capture(stream_, CU_STREAM_CAPTURE_MODE_RELAXED), "capturing a CUDA graph");
}

void Stream::end() {
    CUgraph graph = nullptr;
    cuda_.check(cuda_.end_capture(stream_, &graph), "capturing a CUDA graph");
    CUresult const result = cuda_.instantiate(&executable_, graph, 0);
    cuda_.destroy_graph(graph);
    cuda_.check(result, "making a CUDA graph");
}

void Stream::replay() const { cuda_.check(cuda_.launch(executable_, stream_), "running the engine"); }

}  // namespace cat2dog
