// The CUDA driver, found while the program runs; memory, a stream and a graph that free themselves.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <string>

#include "library.h"

namespace cat2dog {

class Cuda {
public:
    // Loads libcuda.so.1 (or what CAT2DOG_LIBCUDA names) and takes the first GPU for this thread. Raises Error.
    Cuda();
    ~Cuda();
    Cuda(Cuda const&) = delete;
    Cuda& operator=(Cuda const&) = delete;

    std::string gpu_name() const;
    std::string compute_capability() const;

    // Raises Error (failed) unless `result` is a success of `what`.
    void check(CUresult result, char const* what) const;

private:
    Library library_;
    CUdevice device_ = 0;

public:
    // By the names that the library exports; `decltype` keeps each to its declaration.
    decltype(&::cuGetErrorString) get_error_string;
    decltype(&::cuDeviceGetName) device_name;
    decltype(&::cuDeviceGetAttribute) device_attribute;
    decltype(&::cuDevicePrimaryCtxRetain) retain;
    decltype(&::cuDevicePrimaryCtxRelease_v2) release;
    decltype(&::cuCtxSetCurrent) set_current;
    decltype(&::cuMemAlloc_v2) allocate;
    decltype(&::cuMemFree_v2) free;
    decltype(&::cuMemHostAlloc) allocate_host;
    decltype(&::cuMemFreeHost) free_host;
    decltype(&::cuMemcpyHtoDAsync_v2) copy_in;
    decltype(&::cuMemcpyDtoHAsync_v2) copy_out;
    decltype(&::cuStreamCreate) stream_create;
    decltype(&::cuStreamDestroy_v2) stream_destroy;
    decltype(&::cuStreamSynchronize) synchronize;
    decltype(&::cuStreamBeginCapture_v2) begin_capture;
    decltype(&::cuStreamEndCapture) end_capture;
    decltype(&::cuGraphInstantiateWithFlags) instantiate;
    decltype(&::cuGraphLaunch) launch;
    decltype(&::cuGraphDestroy) destroy_graph;
    decltype(&::cuGraphExecDestroy) destroy_executable;
};

// One tensor in pinned host memory and on the GPU.
class Buffer {
public:
    Buffer(Cuda const& cuda, std::size_t bytes);
    ~Buffer();
    Buffer(Buffer&& other) noexcept;
    Buffer(Buffer const&) = delete;
    Buffer& operator=(Buffer const&) = delete;
    void* host() const { return host_; }
    CUdeviceptr device() const { return device_; }
    std::size_t bytes() const { return bytes_; }

private:
    Cuda const* cuda_;
    std::size_t bytes_;
    void* host_ = nullptr;
    CUdeviceptr device_ = 0;
};

// A stream, and one graph that was captured on it.
class Stream {
public:
    explicit Stream(Cuda const& cuda);
    ~Stream();
    Stream(Stream const&) = delete;
    Stream& operator=(Stream const&) = delete;
    CUstream get() const { return stream_; }
    void synchronize() const;

    // Captures what `work` does on this stream; `replay` does it again.
    template <typename Work>
    void capture(Work const& work) {
        begin();
        work();
        end();
    }
    bool is_captured() const { return executable_ != nullptr; }
    void replay() const;

private:
    void begin();
    void end();
    Cuda const& cuda_;
    CUstream stream_ = nullptr;
    CUgraphExec executable_ = nullptr;
};

}  // namespace cat2dog
