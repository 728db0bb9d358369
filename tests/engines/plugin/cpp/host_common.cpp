#include <dlfcn.h>

#include <deque>
#include <mutex>
#include <stdexcept>

#include "host.h"

namespace host {

void* library = nullptr;

namespace {

std::mutex log_mutex;
std::string logged;

class Logger final : public nvinfer1::ILogger {
public:
    explicit Logger(char const* prefix) : prefix_(prefix) {}
    void log(Severity, nvinfer1::AsciiChar const* message) noexcept override {
        std::lock_guard<std::mutex> const lock(log_mutex);
        logged += prefix_;
        logged += message;
        logged += '\n';
    }

private:
    char const* prefix_;
};

Logger plain("");
Logger found("found: ");
bool finds = false;

class Finder final : public nvinfer1::ILoggerFinder {
public:
    nvinfer1::ILogger* findLogger() override { return finds ? &found : nullptr; }
};

class Expression final : public nvinfer1::IDimensionExpr {
public:
    explicit Expression(std::int64_t value) : impl_(value) { mImpl = &impl_; }
    std::int64_t value() const { return impl_.value; }

private:
    using Integer = decltype(std::declval<nvinfer1::IDimensionExpr const&>().getConstantValue());
    struct Impl final : nvinfer1::apiv::VDimensionExpr {
        explicit Impl(std::int64_t given) : value(given) {}
        bool isConstant() const override { return false; }
        Integer getConstantValue() const override { return -1; }
#if NV_TENSORRT_MAJOR >= 10
        bool isSizeTensor() const override { return false; }
#endif
        std::int64_t value;
    } impl_;
};

}  // namespace

struct Expressions::State final : nvinfer1::IExprBuilder {
    struct Impl final : nvinfer1::apiv::VExprBuilder {
        using Integer = decltype(std::declval<nvinfer1::IDimensionExpr const&>().getConstantValue());
        nvinfer1::IDimensionExpr const* constant(Integer value) override { return make(value); }
        nvinfer1::IDimensionExpr const* operation(nvinfer1::DimensionOperation op,
            nvinfer1::IDimensionExpr const& first, nvinfer1::IDimensionExpr const& second) override {
            using nvinfer1::DimensionOperation;
            std::int64_t const a = static_cast<Expression const&>(first).value();
            std::int64_t const b = static_cast<Expression const&>(second).value();
            switch (op) {
                case DimensionOperation::kSUM: return make(a + b);
                case DimensionOperation::kSUB: return make(a - b);
                case DimensionOperation::kPROD: return make(a * b);
                case DimensionOperation::kMIN: return make(a < b ? a : b);
                case DimensionOperation::kMAX: return make(a > b ? a : b);
                case DimensionOperation::kFLOOR_DIV: return make(a / b);
                case DimensionOperation::kCEIL_DIV: return make((a + b - 1) / b);
                default: return nullptr;
            }
        }
#if NV_TENSORRT_MAJOR >= 10
        nvinfer1::IDimensionExpr const* declareSizeTensor(
            std::int32_t, nvinfer1::IDimensionExpr const&, nvinfer1::IDimensionExpr const&) override {
            return nullptr;
        }
#endif
        Expression* make(std::int64_t value) { return &made.emplace_back(value); }
        std::deque<Expression> made;
    };
    Impl impl;
    State() { mImpl = &impl; }
};

Expressions::Expressions() : state_(std::make_unique<State>()) {}
Expressions::~Expressions() = default;
nvinfer1::IExprBuilder& Expressions::builder() { return *state_; }

nvinfer1::DimsExprs Expressions::dims(Sizes const& sizes) {
    nvinfer1::DimsExprs made{};
    for (std::int64_t size : sizes) made.d[made.nbDims++] = state_->impl.make(size);
    return made;
}

Sizes Expressions::values(nvinfer1::DimsExprs const& dims) {
    Sizes sizes;
    for (int i = 0; i < dims.nbDims; ++i) sizes.push_back(static_cast<Expression const*>(dims.d[i])->value());
    return sizes;
}

nvinfer1::Dims dims_of(Sizes const& sizes) {
    nvinfer1::Dims dims{};
    for (std::int64_t size : sizes) dims.d[dims.nbDims++] = static_cast<std::remove_reference_t<decltype(dims.d[0])>>(size);
    return dims;
}

Sizes sizes_of(nvinfer1::Dims const& dims) { return {dims.d, dims.d + dims.nbDims}; }

nvinfer1::PluginTensorDesc desc_of(Tensor const& tensor) {
    nvinfer1::PluginTensorDesc desc{};
    desc.dims = dims_of(tensor.sizes);
    desc.type = tensor.type;
    desc.format = tensor.format;
    return desc;
}

std::string take_log() {
    std::lock_guard<std::mutex> const lock(log_mutex);
    std::string taken;
    taken.swap(logged);
    return taken;
}

void use_logger_finder(bool use) {
    static Finder finder;
    finds = use;
    auto const set = reinterpret_cast<void (*)(nvinfer1::ILoggerFinder*)>(::dlsym(library, "setLoggerFinder"));
    if (set == nullptr) throw std::runtime_error("no setLoggerFinder in the library");
    set(&finder);
}

}  // namespace host

// What TensorRT's library exports, as far as a plugin needs it.
extern "C" __attribute__((visibility("default"))) nvinfer1::ILogger* getLogger() noexcept { return &host::plain; }
extern "C" __attribute__((visibility("default"))) int getInferLibVersion() noexcept { return NV_TENSORRT_VERSION; }
