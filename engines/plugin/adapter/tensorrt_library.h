// The TensorRT that is loaded in this process, found without linking to it: then one plugin library serves every
// release of a major version, and loads where there is no TensorRT at all.
#pragma once

#include <NvInferRuntime.h>

namespace cat2dog {

struct TensorRTLibrary {
    nvinfer1::IPluginRegistry* registry = nullptr;  // null where there is none of this library's major version
    char const* reason = "";                        // why there is none
};

// `load`: may load libnvinfer where it is not loaded yet.
TensorRTLibrary find_tensorrt(bool load) noexcept;

// The logger of TensorRT's first builder or runtime; null where there is none.
nvinfer1::ILogger* tensorrt_logger() noexcept;

}  // namespace cat2dog
