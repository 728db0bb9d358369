// What the stand-ins for the CUDA driver and for TensorRT share.
#pragma once

#include <functional>

namespace fake {

// Does `work`, or keeps it for the graph that is being captured.
void on_stream(void* stream, std::function<void()> work);

}  // namespace fake
