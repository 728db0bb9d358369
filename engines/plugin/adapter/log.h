// Messages go to TensorRT's logger where there is one, else to stderr.
#pragma once

#include <NvInferRuntime.h>

namespace cat2dog {

// Remembers how to find the logger of the engine that calls; the first finder stays.
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;

void log_error(char const* message) noexcept;

}  // namespace cat2dog
