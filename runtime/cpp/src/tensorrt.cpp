// Engines of one major version of TensorRT, that of the headers; its library is found while the program runs.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstring>
#include <functional>

#include "gpu.h"
#include "error.h"
#include "manifest.h"
#include "network.h"
#include "signing.h"

namespace cat2dog {
namespace {

#define CAT2DOG_TEXT_OF(x) #x
#define CAT2DOG_TEXT(x) CAT2DOG_TEXT_OF(x)
#define CAT2DOG_MAJOR CAT2DOG_TEXT(NV_TENSORRT_MAJOR)

// Keeps the last error, which TensorRT says nowhere else.
class Log : public nvinfer1::ILogger {
public:
    void log(Severity severity, nvinfer1::AsciiChar const* message) noexcept override {
        if (severity > Severity::kERROR) return;
        std::strncpy(last_, message, sizeof last_ - 1);
    }
    Error error(Exit code, std::string const& what) const {
        std::string said = last_;
        for (char& c : said) c = static_cast<unsigned char>(c) < 32 ? ' ' : c;
        return {code, what + (said.empty() ? "" : ": " + said)};
    }

private:
    char last_[400] = {};
};

class TensorRT {
public:
    explicit TensorRT(NetworkOptions const& options)
        : library_({options.library.empty() ? "libnvinfer.so." CAT2DOG_MAJOR : options.library}, "TensorRT " CAT2DOG_MAJOR,
                   "give --library FILE, libnvinfer.so." CAT2DOG_MAJOR) {
        int const number = library_.symbol<int (*)()>("getInferLibVersion")();
        // 8601 stands for 8.6.1, 101401 for 10.14.1.
        int const unit = number >= 10000 ? 10000 : 1000;
        version = std::to_string(number / unit) + "." + std::to_string(number % unit / 100) + "." + std::to_string(number % 100);
        // A major version's classes have their functions at places of their own.
        if (number / unit != NV_TENSORRT_MAJOR) {
            throw bad_input("this is TensorRT " + version + ", but the runner was built for version " CAT2DOG_MAJOR
                            ": build it again with that version's headers");
        }
        for (std::string const& plugin : options.plugins) load_plugin(plugin);
    }

    std::unique_ptr<nvinfer1::IRuntime> runtime(Log& log) const {
        using Create = void* (*)(void*, std::int32_t) noexcept;
        // With the library's own version: the headers may be of another minor one.
        int const number = library_.symbol<int (*)()>("getInferLibVersion")();
        void* const made = library_.symbol<Create>("createInferRuntime_INTERNAL")(&log, number);
        if (made == nullptr) throw log.error(Exit::kFailed, "TensorRT " + version + " could not start on this GPU");
        return std::unique_ptr<nvinfer1::IRuntime>(static_cast<nvinfer1::IRuntime*>(made));
    }

    std::string version;

private:
    static void load_plugin(std::string const& path) {
        Library const plugin({path}, "the plugin library", "give --plugins FILE, as `make plugin` builds it");
        if (file_name(path).rfind("libcat2dog_plugin", 0) != 0) return;  // another's registers by itself
        if (plugin.symbol<int (*)()>("cat2dog_register")() != 0) {
            throw bad_input("plugin library " + path + " is not for TensorRT " CAT2DOG_MAJOR);
        }
    }

    Library library_;
};

class EngineNetwork : public Network {
public:
    EngineNetwork(std::string const& path, EngineManifest const& manifest, std::unique_ptr<MappedFile> plan, NetworkOptions const& options)
        : tensorrt_(options), stream_(cuda_) {
        check_machine(path, manifest, tensorrt_.version, cuda_.gpu_name(), cuda_.compute_capability());
        runtime_ = tensorrt_.runtime(log_);
        engine_.reset(runtime_->deserializeCudaEngine(plan->data(), plan->size()));
        plan.reset();  // TensorRT has copied what it keeps
        if (!engine_) throw log_.error(Exit::kForeignEngine, "TensorRT cannot load " + path);
        check(path);
        context_.reset(engine_->createExecutionContext());
        if (!context_) throw log_.error(Exit::kFailed, "TensorRT could not make an execution context");
        for (Tensor const& tensor : tensors()) bind(path, tensor);
    }

    void infer(Crop const& crop, Outputs& outputs) override {
        std::memcpy(buffers_[0].host(), crop.data(), crop.size());
        if (stream_.is_captured()) {
            stream_.replay();
        } else {
            enqueue();
            stream_.synchronize();  // the first time TensorRT prepares what may not be captured
            stream_.capture([this] { enqueue(); });
        }
        stream_.synchronize();
        void* const into[] = {outputs.logits.data(), outputs.embedding.data(), outputs.statistics.data()};
        for (std::size_t i = 1; i < buffers_.size(); ++i) std::memcpy(into[i - 1], buffers_[i].host(), buffers_[i].bytes());
    }

    std::string about() const override { return "TensorRT " + tensorrt_.version + ", " + cuda_.gpu_name() + ", CUDA graph"; }

private:
    void check(std::string const& path) const {
        int const count = engine_->getNbIOTensors();
        if (count != static_cast<int>(tensors().size())) {
            throw bad_input(path + " is no network of this family: it has " + std::to_string(count) + " tensors; expected 4");
        }
        for (int i = 0; i < count; ++i) {
            char const* const name = engine_->getIOTensorName(i);
            bool const is_input = engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
            nvinfer1::Dims const shape = engine_->getTensorShape(name);
            bool const fits = engine_->getTensorDataType(name) == (is_input ? nvinfer1::DataType::kUINT8 : nvinfer1::DataType::kFLOAT) &&
                              engine_->getTensorFormat(name) == nvinfer1::TensorFormat::kLINEAR && shape.nbDims >= 0;
            check_tensor(path, name, is_input, fits, {shape.d, shape.d + (fits ? shape.nbDims : 0)});
        }
    }

    void bind(std::string const& path, Tensor const& tensor) {
        buffers_.emplace_back(cuda_, tensor.bytes);
        bool fits = context_->setTensorAddress(tensor.name, reinterpret_cast<void*>(buffers_.back().device()));
        if (tensor.is_input) {
            nvinfer1::Dims shape{};
            shape.nbDims = static_cast<int>(tensor.shape.size());
            for (int axis = 0; axis < shape.nbDims; ++axis) {
                shape.d[axis] = static_cast<std::remove_reference_t<decltype(shape.d[0])>>(axis == 0 ? 1 : tensor.shape[static_cast<std::size_t>(axis)]);
            }
            fits = fits && context_->setInputShape(tensor.name, shape);
        }
        if (!fits) throw log_.error(Exit::kBadInput, path + " does not take one picture at a time: build it with --batch 1 or 1-8");
    }

    void enqueue() {
        CUstream const stream = stream_.get();
        cuda_.check(cuda_.copy_in(buffers_[0].device(), buffers_[0].host(), buffers_[0].bytes(), stream), "copying to the GPU");
        if (!context_->enqueueV3(stream)) throw log_.error(Exit::kFailed, "TensorRT could not run the engine");
        for (std::size_t i = 1; i < buffers_.size(); ++i) {
            cuda_.check(cuda_.copy_out(buffers_[i].host(), buffers_[i].device(), buffers_[i].bytes(), stream), "copying from the GPU");
        }
    }

    // Freed from below: the driver goes last, and the log outlives what may write into it.
    Cuda cuda_;
    TensorRT tensorrt_;
    Log log_;
    Stream stream_;
    std::vector<Buffer> buffers_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
};

}  // namespace

std::string engines_of() { return "TensorRT " CAT2DOG_MAJOR; }

std::unique_ptr<Network> open_engine(std::string const& path, NetworkOptions const& options) {
    EngineManifest const manifest = read_engine_manifest(path);
    check_policy(path, manifest.content, options.signed_by);
    // Before the GPU is touched, and what is hashed is what is loaded.
    auto plan = std::make_unique<MappedFile>(path);
    check_size(path, manifest, *plan);
    if (options.signed_by) plan->own();
    check_plan(path, manifest, *plan);
    if (manifest.needs_plugin && options.plugins.empty()) {
        throw bad_input("engine " + path + " has fused kernels: give --plugins build/plugin/libcat2dog_plugin_trt" CAT2DOG_MAJOR ".so");
    }
    return std::make_unique<EngineNetwork>(path, manifest, std::move(plan), options);
}

}  // namespace cat2dog
