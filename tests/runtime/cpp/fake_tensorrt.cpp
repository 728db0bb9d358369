// Plays TensorRT behind its own headers. A class there keeps a pointer to an object with some hundred virtual functions;
// here that object has a table of which only what the runner calls is filled in: all else ends the process.
//
// Plan: "FAKE" and, if wanted, " smaller" (an engine whose logits are [B,999]) or " broken" (it cannot be loaded).
// In FAKE_REWRITE may stand the plan's path: its file is written over, in place, just before it is loaded.
// Answers: logit i is byte i of the crop / 255, embedding j is byte j, mean is byte 0, variance byte 1.
#include <NvInferRuntime.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "fake_gpu.h"

namespace {

using namespace nvinfer1;

[[noreturn]] void unexpected() {
    std::fputs("the stand-in for TensorRT was called in a way that it does not know\n", stderr);
    std::abort();
}

// An object as the compiler lays it out (Itanium ABI): first a pointer to a table of functions.
struct Virtual {
    Virtual() { table.fill(reinterpret_cast<void*>(&unexpected)); }

    // A pointer to a virtual member is its offset in the table, plus one.
    template <typename Member, typename Function>
    void set(Member member, Function function) {
        std::uintptr_t offset = 0;
        std::memcpy(&offset, &member, sizeof offset);
        table.at((offset - 1) / sizeof(void*)) = reinterpret_cast<void*>(function);
    }

    std::array<void*, 512> table;
    void** at = table.data();
};

ILogger* logger = nullptr;
bool is_smaller = false;
constexpr char const* kNames[] = {"crop", "logits", "embedding", "statistics"};

Dims shape_of(std::string const& name) {
    Dims shape{};
    shape.d[0] = -1;
    shape.nbDims = name == "crop" ? 4 : 2;
    if (name == "crop") shape.d[1] = 100, shape.d[2] = 100, shape.d[3] = 3;
    if (name == "logits") shape.d[1] = is_smaller ? 999 : 1000;
    if (name == "embedding") shape.d[1] = 2048;
    if (name == "statistics") shape.d[1] = 2;
    return shape;
}

struct Context : IExecutionContext {
    Context() {
        using V = apiv::VExecutionContext;
        static std::map<std::string, void*> addresses;
        static bool is_shaped;
        is_shaped = false;
        implementation.set(static_cast<bool (V::*)(char const*, void*)>(&V::setTensorAddress),
                           +[](void*, char const* name, void* address) { return addresses[name] = address, true; });
        implementation.set(&V::setInputShape, +[](void*, char const* name, Dims const& shape) {
            return is_shaped = std::string(name) == "crop" && shape.nbDims == 4 && shape.d[0] == 1 && shape.d[3] == 3;
        });
        implementation.set(&V::enqueueV3, +[](void*, cudaStream_t stream) {
            if (!is_shaped || addresses.size() != 4) return false;
            fake::on_stream(stream, [] {
                auto const* const crop = static_cast<std::uint8_t const*>(addresses["crop"]);
                auto const at = [](char const* name) { return static_cast<float*>(addresses[name]); };
                for (int i = 0; i < 1000; ++i) at("logits")[i] = static_cast<float>(crop[i]) / 255;
                for (int i = 0; i < 2048; ++i) at("embedding")[i] = crop[i];
                for (int i = 0; i < 2; ++i) at("statistics")[i] = crop[i];
            });
            return true;
        });
        mImpl = reinterpret_cast<V*>(&implementation.at);
    }
    Virtual implementation;
};

struct Engine : ICudaEngine {
    Engine() {
        using V = apiv::VCudaEngine;
        implementation.set(&V::getNbIOTensors, +[](void*) { return 4; });
        implementation.set(&V::getIOTensorName, +[](void*, std::int32_t index) { return kNames[index]; });
        implementation.set(&V::getTensorIOMode, +[](void*, char const* name) {
            return std::string(name) == "crop" ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
        });
        implementation.set(&V::getTensorShape, +[](void*, char const* name) { return shape_of(name); });
        implementation.set(&V::getTensorDataType, +[](void*, char const* name) {
            return std::string(name) == "crop" ? DataType::kUINT8 : DataType::kFLOAT;
        });
        implementation.set(&V::getTensorFormat, +[](void*, char const*) { return TensorFormat::kLINEAR; });
#if NV_TENSORRT_MAJOR < 10
        implementation.set(&V::createExecutionContext, +[](void*) -> IExecutionContext* { return new Context; });
#else
        implementation.set(static_cast<IExecutionContext* (V::*)(ExecutionContextAllocationStrategy)>(&V::createExecutionContext),
                           +[](void*, ExecutionContextAllocationStrategy) -> IExecutionContext* { return new Context; });
#endif
        mImpl = reinterpret_cast<V*>(&implementation.at);
    }
    Virtual implementation;
};

struct Runtime : IRuntime {
    Runtime() {
        using V = apiv::VRuntime;
        auto const load = +[](void*, void const* plan, std::size_t size) -> ICudaEngine* {
            std::string const text(static_cast<char const*>(plan), size);
            is_smaller = text.find(" smaller") != std::string::npos;
            if (text.rfind("FAKE", 0) == 0 && text.find(" broken") == std::string::npos) return new Engine;
            logger->log(ILogger::Severity::kERROR, "the plan is of\nanother machine");
            return nullptr;
        };
#if NV_TENSORRT_MAJOR < 10
        implementation.set(&V::deserializeCudaEngine, load);  // with one more argument, which is null
#else
        implementation.set(static_cast<ICudaEngine* (V::*)(void const*, std::size_t)>(&V::deserializeCudaEngine), load);
#endif
        mImpl = reinterpret_cast<V*>(&implementation.at);
    }
    Virtual implementation;
};

}  // namespace

extern "C" {

std::int32_t getInferLibVersion() {
    char const* const told = std::getenv("FAKE_TENSORRT_VERSION");
    if (told != nullptr) return std::atoi(told);
    return NV_TENSORRT_MAJOR < 10 ? NV_TENSORRT_MAJOR * 1000 + 600 : NV_TENSORRT_MAJOR * 10000 + 600;
}

void* createInferRuntime_INTERNAL(void* log, std::int32_t version) {
    logger = static_cast<ILogger*>(log);
    if (char const* const path = std::getenv("FAKE_REWRITE")) {
        std::FILE* const file = std::fopen(path, "r+");
        if (file == nullptr || std::fputs("GONE", file) < 0 || std::fclose(file) != 0) unexpected();
    }
    return version == getInferLibVersion() ? static_cast<IRuntime*>(new Runtime) : nullptr;
}

}  // extern "C"
