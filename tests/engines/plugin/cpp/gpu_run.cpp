// One plan on a real GPU, through the plugin; arguments in main.cpp. Also runs on the fake driver, whose kernels write
// nothing.
#include <cuda.h>
#include <dlfcn.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "checks.h"
#include "host.h"

namespace host {
namespace {

using nvinfer1::DataType;

struct Cuda {
    decltype(&::cuInit) init;
    decltype(&::cuGetErrorName) error_name;
    decltype(&::cuDeviceGet) device_get;
    decltype(&::cuDeviceGetName) device_name;
    decltype(&::cuDevicePrimaryCtxRetain) context_retain;
    decltype(&::cuCtxSetCurrent) context_set;
    decltype(&::cuMemAlloc_v2) alloc;
    decltype(&::cuMemFree_v2) free;
    decltype(&::cuMemcpyHtoD_v2) to_device;
    decltype(&::cuMemcpyDtoH_v2) to_host;
    decltype(&::cuMemsetD8Async) set;
    decltype(&::cuStreamCreate) stream_create;
    decltype(&::cuStreamDestroy_v2) stream_destroy;
    decltype(&::cuStreamSynchronize) synchronize;
    decltype(&::cuStreamBeginCapture_v2) begin_capture;
    decltype(&::cuStreamEndCapture) end_capture;
    decltype(&::cuGraphInstantiateWithFlags) instantiate;
    decltype(&::cuGraphLaunch) graph_launch;
    decltype(&::cuGraphExecDestroy) exec_destroy;
    decltype(&::cuGraphDestroy) graph_destroy;
} cuda;

template <typename Function>
void find(void* driver, char const* name, Function& function) {
    function = reinterpret_cast<Function>(::dlsym(driver, name));
    if (function == nullptr) throw std::runtime_error(std::string("the CUDA driver has no ") + name);
}

void load_cuda(char const* path) {
    void* const driver = ::dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (driver == nullptr) throw std::runtime_error(::dlerror());
    find(driver, "cuInit", cuda.init);
    find(driver, "cuGetErrorName", cuda.error_name);
    find(driver, "cuDeviceGet", cuda.device_get);
    find(driver, "cuDeviceGetName", cuda.device_name);
    find(driver, "cuDevicePrimaryCtxRetain", cuda.context_retain);
    find(driver, "cuCtxSetCurrent", cuda.context_set);
    find(driver, "cuMemAlloc_v2", cuda.alloc);
    find(driver, "cuMemFree_v2", cuda.free);
    find(driver, "cuMemcpyHtoD_v2", cuda.to_device);
    find(driver, "cuMemcpyDtoH_v2", cuda.to_host);
    find(driver, "cuMemsetD8Async", cuda.set);
    find(driver, "cuStreamCreate", cuda.stream_create);
    find(driver, "cuStreamDestroy_v2", cuda.stream_destroy);
    find(driver, "cuStreamSynchronize", cuda.synchronize);
    find(driver, "cuStreamBeginCapture_v2", cuda.begin_capture);
    find(driver, "cuStreamEndCapture", cuda.end_capture);
    find(driver, "cuGraphInstantiateWithFlags", cuda.instantiate);
    find(driver, "cuGraphLaunch", cuda.graph_launch);
    find(driver, "cuGraphExecDestroy", cuda.exec_destroy);
    find(driver, "cuGraphDestroy", cuda.graph_destroy);
}

void check(CUresult result, char const* what) {
    if (result == CUDA_SUCCESS) return;
    char const* name = nullptr;
    cuda.error_name(result, &name);
    throw std::runtime_error(std::string(what) + ": " + (name != nullptr ? name : "unknown error"));
}

std::string read_file(std::string const& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + path);
    return {std::istreambuf_iterator<char>(file), {}};
}

struct Operand {
    std::string type;
    Tensor tensor;
    std::string bytes;
};

std::size_t element_bytes(std::string const& type) {
    return type == "fp32" || type == "i32" ? 4 : type == "fp16" || type == "bf16" ? 2 : 1;
}

DataType data_type(std::string const& type) {
    if (type == "fp16") return DataType::kHALF;
    if (type == "fp32") return DataType::kFLOAT;
    if (type == "i32") return DataType::kINT32;
    if (type == "u8") return DataType::kUINT8;
    if (type == "i8") return DataType::kINT8;
#if NV_TENSORRT_MAJOR >= 9
    if (type == "bf16") return DataType::kBF16;
#endif
    throw std::runtime_error("type '" + type + "', expected fp16, bf16, fp32, i32, u8 or i8 (TensorRT 8.6 has no bf16)");
}

// TYPE:SIZES:FILE
Operand operand(std::string const& text) {
    std::size_t const first = text.find(':');
    std::size_t const second = text.find(':', first + 1);
    if (second == std::string::npos) throw std::runtime_error("'" + text + "', expected TYPE:SIZES:FILE");
    Operand made;
    made.type = text.substr(0, first);
    made.tensor.type = data_type(made.type);
    std::size_t bytes = element_bytes(made.type);
    for (std::size_t at = first + 1; at < second;) {
        std::size_t used = 0;
        made.tensor.sizes.push_back(std::stoll(text.substr(at, second - at), &used));
        bytes *= static_cast<std::size_t>(made.tensor.sizes.back());
        at += used + 1;
    }
    made.bytes = read_file(text.substr(second + 1));
    if (made.bytes.size() != bytes) {
        throw std::runtime_error(text + ": " + std::to_string(made.bytes.size()) + " bytes, expected " + std::to_string(bytes));
    }
    return made;
}

double half_value(std::uint16_t bits) {
    int const exponent = bits >> 10 & 31;
    int const mantissa = bits & 1023;
    double const size = exponent == 0 ? std::ldexp(mantissa, -24)
        : exponent == 31 ? (mantissa != 0 ? NAN : INFINITY) : std::ldexp(1024 + mantissa, exponent - 25);
    return (bits >> 15) != 0 ? -size : size;
}

double element(Operand const& operand, char const* bytes, std::size_t index) {
    char const* const at = bytes + index * element_bytes(operand.type);
    std::uint32_t word = 0;
    std::memcpy(&word, at, element_bytes(operand.type));
    if (operand.type == "fp16") return half_value(static_cast<std::uint16_t>(word));
    if (operand.type == "i32") return static_cast<std::int32_t>(word);
    if (operand.type == "i8") return static_cast<std::int8_t>(word);
    if (operand.type == "u8") return word;
    if (operand.type == "bf16") word <<= 16;
    float real = 0;
    std::memcpy(&real, &word, 4);
    return static_cast<double>(real);
}

struct Errors {
    double most = 0;
    double rms = 0;
};

Errors compare(Operand const& expected, std::string const& given) {
    Errors errors;
    std::size_t const count = expected.bytes.size() / element_bytes(expected.type);
    for (std::size_t i = 0; i < count; ++i) {
        double const difference =
            std::abs(element(expected, expected.bytes.data(), i) - element(expected, given.data(), i));
        // A NaN anywhere must fail, and compares false with everything.
        errors.most = difference > errors.most || std::isnan(difference) ? difference : errors.most;
        if (std::isnan(difference)) return {NAN, NAN};
        errors.rms += difference * difference;
    }
    errors.rms = count > 0 ? std::sqrt(errors.rms / static_cast<double>(count)) : 0;
    return errors;
}

struct Options {
    std::vector<Operand> inputs, outputs;
    double most = 0.02;
    double rms = 0.002;
    int repeat = 100;
    char const* driver = "libcuda.so.1";
    int device = 0;
};

struct Device {
    explicit Device(std::size_t bytes) { check(cuda.alloc(&address, bytes > 0 ? bytes : 1), "cuMemAlloc"); }
    ~Device() { cuda.free(address); }
    Device(Device const&) = delete;
    Device& operator=(Device const&) = delete;
    CUdeviceptr address = 0;
};

std::mutex print_mutex;

// One execution context on one thread and stream; false where an error is too large.
bool run_context(int number, Plugin& engine, Options const& options, CUcontext context) {
    check(cuda.context_set(context), "cuCtxSetCurrent");
    std::unique_ptr<Plugin> const plugin = engine.attach();
    if (plugin == nullptr) throw std::runtime_error("the plugin refuses to attach: " + take_log());
    std::vector<std::unique_ptr<Device>> memory;
    std::vector<void const*> inputs;
    std::vector<void*> outputs;
    std::vector<Tensor> in, out;
    std::vector<Sizes> shapes;
    for (Operand const& each : options.inputs) {
        memory.push_back(std::make_unique<Device>(each.bytes.size()));
        check(cuda.to_device(memory.back()->address, each.bytes.data(), each.bytes.size()), "cuMemcpyHtoD");
        inputs.push_back(reinterpret_cast<void const*>(memory.back()->address));
        in.push_back(each.tensor);
        shapes.push_back(each.tensor.sizes);
    }
    for (Operand const& each : options.outputs) {
        memory.push_back(std::make_unique<Device>(each.bytes.size()));
        outputs.push_back(reinterpret_cast<void*>(memory.back()->address));
        out.push_back(each.tensor);
    }
    std::size_t const workspace_bytes = plugin->workspace(shapes);
    Device const workspace(workspace_bytes);
    if (!plugin->shape_change(in, out)) throw std::runtime_error("the plugin refuses the shapes: " + take_log());
    plugin->prepare(in, out);
    CUstream stream = nullptr;
    check(cuda.stream_create(&stream, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
    auto const enqueue = [&] {
        if (plugin->enqueue(in, out, inputs.data(), outputs.data(), reinterpret_cast<void*>(workspace.address),
                reinterpret_cast<cudaStream_t>(stream)) != 0) {
            throw std::runtime_error("enqueue failed: " + take_log());
        }
    };
    auto const clear = [&] {
        for (std::size_t i = 0; i < outputs.size(); ++i) {
            check(cuda.set(reinterpret_cast<CUdeviceptr>(outputs[i]), 0, options.outputs[i].bytes.size(), stream), "cuMemset");
        }
    };
    bool sound = true;
    auto const judge = [&](char const* how, double microseconds) {
        for (std::size_t i = 0; i < outputs.size(); ++i) {
            std::string given(options.outputs[i].bytes.size(), '\0');
            check(cuda.to_host(&given[0], reinterpret_cast<CUdeviceptr>(outputs[i]), given.size()), "cuMemcpyDtoH");
            Errors const errors = compare(options.outputs[i], given);
            bool const good = errors.most <= options.most && errors.rms <= options.rms;
            sound = sound && good;
            std::lock_guard<std::mutex> const lock(print_mutex);
            std::printf("%s: thread %d %s output %zu: max abs %.3g, rms %.3g, workspace %zu bytes, %.1f us\n",
                good ? "ok" : "FAILED", number, how, i, errors.most, errors.rms, workspace_bytes, microseconds);
        }
    };
    auto const timed = [&](auto&& launch) {
        auto const began = std::chrono::steady_clock::now();
        for (int i = 0; i < options.repeat; ++i) launch();
        check(cuda.synchronize(stream), "cuStreamSynchronize");
        std::chrono::duration<double, std::micro> const took = std::chrono::steady_clock::now() - began;
        return took.count() / options.repeat;
    };
    clear();
    enqueue();
    check(cuda.synchronize(stream), "cuStreamSynchronize");
    judge("eager", timed(enqueue));
    clear();
    CUgraph graph = nullptr;
    CUgraphExec exec = nullptr;
    check(cuda.begin_capture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), "cuStreamBeginCapture");
    enqueue();
    check(cuda.end_capture(stream, &graph), "cuStreamEndCapture");
    check(cuda.instantiate(&exec, graph, 0), "cuGraphInstantiate");
    judge("graph", timed([&] { check(cuda.graph_launch(exec, stream), "cuGraphLaunch"); }));
    check(cuda.exec_destroy(exec), "cuGraphExecDestroy");
    check(cuda.graph_destroy(graph), "cuGraphDestroy");
    check(cuda.stream_destroy(stream), "cuStreamDestroy");
    return sound;
}

}  // namespace

int run_gpu(int count, char** arguments) {
    if (count < 2) throw std::runtime_error("--gpu needs LAUNCH and IMAGES");
    std::string const launch = read_file(arguments[0]);
    std::string const images = read_file(arguments[1]);
    Options options;
    for (int i = 2; i < count; i += 2) {
        std::string const name = arguments[i];
        if (i + 1 == count) throw std::runtime_error(name + " needs a value");
        char const* const value = arguments[i + 1];
        if (name == "--input") options.inputs.push_back(operand(value));
        else if (name == "--output") options.outputs.push_back(operand(value));
        else if (name == "--max-abs") options.most = std::stod(value);
        else if (name == "--rms") options.rms = std::stod(value);
        else if (name == "--repeat") options.repeat = std::stoi(value);
        else if (name == "--driver") options.driver = value;
        else if (name == "--device") options.device = std::stoi(value);
        else throw std::runtime_error("unknown option " + name);
    }
    load_cuda(options.driver);
    check(cuda.init(0), "cuInit");
    CUdevice device = 0;
    CUcontext context = nullptr;
    char gpu[128] = {};
    check(cuda.device_get(&device, options.device), "cuDeviceGet");
    check(cuda.device_name(gpu, sizeof(gpu) - 1, device), "cuDeviceGetName");
    check(cuda.context_retain(&context, device), "cuDevicePrimaryCtxRetain");
    check(cuda.context_set(context), "cuCtxSetCurrent");
    std::unique_ptr<Plugin> const made = create("FusedAttention",
        {{"launch", nvinfer1::PluginFieldType::kCHAR, launch, static_cast<int>(launch.size())},
            {"images", nvinfer1::PluginFieldType::kINT8, images, static_cast<int>(images.size())}});
    if (made == nullptr) throw std::runtime_error("no plugin: " + take_log());
    std::unique_ptr<Plugin> const engine = deserialize("FusedAttention", made->serialize());
    if (engine == nullptr) throw std::runtime_error("not deserialized: " + take_log());
    std::printf("%s, %s\n", gpu, engine->identity().c_str());
    std::vector<std::thread> threads;
    bool sound[2] = {};
    std::string failures[2];
    // V2's initialize is not for several threads at once, and TensorRT does not call it so.
    engine->attach();
    for (int i = 0; i < 2; ++i) {
        threads.emplace_back([&, i] {
            try {
                sound[i] = run_context(i, *engine, options, context);
            } catch (std::exception const& error) {
                failures[i] = error.what();
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (std::string const& failure : failures) {
        if (!failure.empty()) std::fprintf(stderr, "error: %s\n", failure.c_str());
    }
    return sound[0] && sound[1] ? 0 : 1;
}

}  // namespace host
