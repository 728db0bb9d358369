#include "log.h"

#include <atomic>
#include <cstdio>

#include "tensorrt_library.h"

namespace cat2dog {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> finder{nullptr};

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* given) noexcept {
    nvinfer1::ILoggerFinder* none = nullptr;
    if (given != nullptr) finder.compare_exchange_strong(none, given);
}

void log_error(char const* message) noexcept {
    nvinfer1::ILogger* logger = nullptr;
    try {
        nvinfer1::ILoggerFinder* const found = finder.load();
        if (found != nullptr) logger = found->findLogger();
        // TensorRT's own: that of the first builder or runtime, alive while one of them calls a plugin.
        if (logger == nullptr) logger = tensorrt_logger();
    } catch (...) {
        logger = nullptr;  // the finder is foreign and not declared noexcept
    }
    if (logger != nullptr) {
        logger->log(nvinfer1::ILogger::Severity::kERROR, message);
    } else {
        std::fprintf(stderr, "error: %s\n", message);
    }
}

}  // namespace cat2dog
