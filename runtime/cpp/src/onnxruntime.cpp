#include <cstdlib>
#include <utility>

#include "error.h"
#include "library.h"
#include "manifest.h"
#include "network.h"
#include "onnxruntime_abi.h"

namespace cat2dog {
namespace {

constexpr int kErrorsOnly = 3;
constexpr int kDeviceAllocator = 0;
constexpr int kDefaultMemory = 0;

// The library, and its calls as functions that raise.
class Ort {
public:
    explicit Ort(std::string const& named) : library_(names(named), "ONNX Runtime", kAdvice) {
        auto const* const base = library_.symbol<ort::ApiBase const* (*)()>("OrtGetApiBase")();
        table_ = base->get_api(ort::kVersion);
        if (table_ == nullptr) throw bad_input(std::string("this ONNX Runtime is too old; ") + kAdvice);
        version = base->get_version();
    }

#define CAT2DOG_CALL(name, position, ...)                                              \
    template <typename... Arguments>                                                  \
    void name(Arguments... arguments) const {                                         \
        using Function = ort::Status* (*)(__VA_ARGS__);                               \
        check(reinterpret_cast<Function>(entry(position))(arguments...));             \
    }
#define CAT2DOG_RELEASE(name, position) \
    void release(ort::name* made) const { reinterpret_cast<void (*)(ort::name*)>(entry(position))(made); }

private:
    // The macros' parameters are named in ort.
    using Env = ort::Env;
    using Session = ort::Session;
    using SessionOptions = ort::SessionOptions;
    using TypeInfo = ort::TypeInfo;
    using TensorInfo = ort::TensorInfo;
    using MemoryInfo = ort::MemoryInfo;
    using Value = ort::Value;
    using Allocator = ort::Allocator;

public:
    CAT2DOG_ORT_CALLS(CAT2DOG_CALL)
    CAT2DOG_ORT_RELEASES(CAT2DOG_RELEASE)

    std::string version;

private:
    static constexpr char const* kAdvice =
        "give --library FILE, such as onnxruntime/capi/libonnxruntime.so.1.* of the Python package";

    static std::vector<std::string> names(std::string const& named) {
        if (!named.empty()) return {named};
        if (char const* const home = std::getenv("ONNXRUNTIME_HOME")) return {std::string(home) + "/lib/libonnxruntime.so"};
        return {"libonnxruntime.so.1", "libonnxruntime.so"};
    }

    void const* entry(std::size_t position) const { return table_[position]; }

    void check(ort::Status* status) const {
        if (status == nullptr) return;
        auto const message = reinterpret_cast<char const* (*)(ort::Status const*)>(entry(ort::kGetErrorMessage));
        std::string const text = message(status);
        release(status);
        throw failed("ONNX Runtime failed: " + text.substr(0, text.find('\n')).substr(0, 400));
    }

    Library library_;
    void const* const* table_ = nullptr;
};

// What ONNX Runtime made and wants back.
template <typename T>
class Held {
public:
    explicit Held(Ort const& ort) : ort_(&ort) {}
    ~Held() { if (made_ != nullptr) ort_->release(made_); }
    Held(Held&& other) noexcept : ort_(other.ort_), made_(std::exchange(other.made_, nullptr)) {}
    Held(Held const&) = delete;
    Held& operator=(Held const&) = delete;
    T* get() const { return made_; }
    T** out() { return &made_; }

private:
    Ort const* ort_;
    T* made_ = nullptr;
};

class OnnxNetwork : public Network {
public:
    OnnxNetwork(std::string const& path, NetworkOptions const& options)
        : ort_(options.library), env_(ort_), session_(ort_), memory_(ort_) {
        ort_.CreateEnv(kErrorsOnly, "cat2dog", env_.out());
        Held<ort::SessionOptions> session_options(ort_);
        ort_.CreateSessionOptions(session_options.out());
        ort_.SetSessionLogSeverityLevel(session_options.get(), kErrorsOnly);
        if (options.threads > 0) ort_.SetIntraOpNumThreads(session_options.get(), options.threads);
        try {
            ort_.CreateSession(env_.get(), path.c_str(), session_options.get(), session_.out());
        } catch (Error const& error) {
            throw bad_input(path + " cannot be loaded: " + error.what());
        }
        ort_.CreateCpuMemoryInfo(kDeviceAllocator, kDefaultMemory, memory_.out());
        check(path);
        for (Tensor const& tensor : tensors()) (tensor.is_input ? inputs_ : outputs_).push_back(tensor.name);
    }

    void infer(Crop const& crop, Outputs& outputs) override {
        Held<ort::Value> const input = value(tensors()[0], const_cast<std::uint8_t*>(crop.data()), ort::kUint8);
        float* const into[] = {outputs.logits.data(), outputs.embedding.data(), outputs.statistics.data()};
        std::vector<Held<ort::Value>> made;
        std::vector<ort::Value*> values;
        // It writes into memory that it is given, without a copy.
        for (std::size_t i = 0; i < outputs_.size(); ++i) {
            made.push_back(value(tensors()[i + 1], into[i], ort::kFloat));
            values.push_back(made.back().get());
        }
        ort::Value const* const given = input.get();
        ort_.Run(session_.get(), nullptr, inputs_.data(), &given, inputs_.size(), outputs_.data(), outputs_.size(), values.data());
    }

    std::string about() const override { return "ONNX Runtime " + ort_.version + ", CPU"; }

private:
    void check(std::string const& path) const {
        std::size_t inputs = 0;
        std::size_t outputs = 0;
        ort_.SessionGetInputCount(session_.get(), &inputs);
        ort_.SessionGetOutputCount(session_.get(), &outputs);
        if (inputs != 1 || outputs != tensors().size() - 1) {
            throw bad_input(path + " is no network of this family: it has " + std::to_string(inputs) + " inputs and " +
                            std::to_string(outputs) + " outputs; expected 1 and 3");
        }
        for (std::size_t i = 0; i < inputs + outputs; ++i) check_one(path, i < inputs, i < inputs ? i : i - inputs);
    }

    void check_one(std::string const& path, bool is_input, std::size_t index) const {
        ort::Allocator* allocator = nullptr;
        ort_.GetAllocatorWithDefaultOptions(&allocator);
        char* text = nullptr;
        Held<ort::TypeInfo> info(ort_);
        if (is_input) {
            ort_.SessionGetInputTypeInfo(session_.get(), index, info.out());
            ort_.SessionGetInputName(session_.get(), index, allocator, &text);
        } else {
            ort_.SessionGetOutputTypeInfo(session_.get(), index, info.out());
            ort_.SessionGetOutputName(session_.get(), index, allocator, &text);
        }
        std::string const name = text;
        ort_.AllocatorFree(allocator, text);
        ort::TensorInfo const* tensor = nullptr;
        ort_.CastTypeInfoToTensorInfo(info.get(), &tensor);  // null for what is no tensor
        int type = 0;
        std::size_t rank = 0;
        if (tensor != nullptr) {
            ort_.GetTensorElementType(tensor, &type);
            ort_.GetDimensionsCount(tensor, &rank);
        }
        std::vector<std::int64_t> shape(rank);
        if (rank != 0) ort_.GetDimensions(tensor, shape.data(), rank);
        check_tensor(path, name, is_input, type == (is_input ? ort::kUint8 : ort::kFloat), shape);
    }

    Held<ort::Value> value(Tensor const& tensor, void* data, int type) const {
        std::vector<std::int64_t> shape = tensor.shape;
        shape[0] = 1;
        Held<ort::Value> made(ort_);
        ort_.CreateTensorWithDataAsOrtValue(memory_.get(), data, tensor.bytes, shape.data(), shape.size(), type, made.out());
        return made;
    }

    Ort ort_;
    Held<ort::Env> env_;
    Held<ort::Session> session_;
    Held<ort::MemoryInfo> memory_;
    std::vector<char const*> inputs_;
    std::vector<char const*> outputs_;
};

}  // namespace

std::unique_ptr<Network> open_onnx(std::string const& path, NetworkOptions const& options) {
    check_onnx(path);
    if (!options.plugins.empty()) throw bad_input("--plugins are for engines, but " + path + " is an ONNX file");
    return std::make_unique<OnnxNetwork>(path, options);
}

}  // namespace cat2dog
