// The creators of an adapter, one for each kind of node.
#pragma once

#include <NvInferRuntime.h>

#include <array>

#include "node.h"

namespace cat2dog {

#if NV_TENSORRT_MAJOR >= 10
using Creator = nvinfer1::IPluginCreatorInterface;
#else
using Creator = nvinfer1::IPluginCreator;
#endif
using Creators = std::array<Creator*, kNodeNames.size()>;

// Made when first asked for, and never destroyed.
Creators const& creators() noexcept;

}  // namespace cat2dog
