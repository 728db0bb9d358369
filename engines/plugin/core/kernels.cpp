#include "kernels.h"

#include <array>

#include "error.h"
#include "modules.h"

namespace cat2dog {
namespace {

void check_target(Plan const& plan) {
    Driver const& cuda = driver();
    CUcontext context = nullptr;
    cuda.check(cuda.context_current(&context), "cuCtxGetCurrent");
    if (context == nullptr) fail("no CUDA context is current in this thread: expected TensorRT to have made one");
    CUdevice device = 0;
    int major = 0;
    int minor = 0;
    cuda.check(cuda.context_device(&device), "cuCtxGetDevice");
    constexpr auto kMajor = CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
    constexpr auto kMinor = CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR;
    cuda.check(cuda.device_attribute(&major, kMajor, device), "cuDeviceGetAttribute");
    cuda.check(cuda.device_attribute(&minor, kMinor, device), "cuDeviceGetAttribute");
    Target const& target = plan.target;
    bool const fits = major == target.major && (target.exact ? minor == target.minor : minor >= target.minor);
    if (!fits) {
        fail("this GPU has compute capability %d.%d, the kernels are for %d.%d%s: build the engine on this GPU", major,
            minor, target.major, target.minor, target.exact ? " and no other" : " and later ones of that family");
    }
    for (Launch const& launch : plan.launches) {
        if (!launch.maps.empty() && cuda.encode_tiled == nullptr) {
            fail("kernel %.200s needs tensor maps, which this CUDA driver lacks: update it to 525 (CUDA 12.0) or newer",
                launch.name.c_str());
        }
    }
}

CUtensorMapDataType map_type(Type type) {
    switch (type) {
        case Type::kFp16: return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
        case Type::kBf16: return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
        case Type::kFp32: return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
        case Type::kI32: return CU_TENSOR_MAP_DATA_TYPE_INT32;
        default: return CU_TENSOR_MAP_DATA_TYPE_UINT8;  // bytes are moved as they are, signed or not
    }
}

CUtensorMapSwizzle map_swizzle(Swizzle swizzle) {
    switch (swizzle) {
        case Swizzle::k32B: return CU_TENSOR_MAP_SWIZZLE_32B;
        case Swizzle::k64B: return CU_TENSOR_MAP_SWIZZLE_64B;
        case Swizzle::k128B: return CU_TENSOR_MAP_SWIZZLE_128B;
        default: return CU_TENSOR_MAP_SWIZZLE_NONE;
    }
}

char* base_of(Address const& address, Pointers const& pointers) {
    switch (address.operand) {
        case Operand::kInput:
            // Kernels take plain addresses; that an input is only read is theirs to keep.
            return static_cast<char*>(const_cast<void*>(pointers.inputs[address.index]));
        case Operand::kOutput: return static_cast<char*>(pointers.outputs[address.index]);
        default: return static_cast<char*>(pointers.workspace);
    }
}

void encode(Launch const& launch, std::size_t index, ResolvedMap const& resolved, char* base, CUtensorMap& made) {
    constexpr std::array<cuuint32_t, kMostMapDims> kOnes{1, 1, 1, 1, 1};
    TensorMap const& map = launch.maps[index];
    static_assert(sizeof(cuuint64_t) == sizeof(std::uint64_t) && sizeof(cuuint32_t) == sizeof(std::uint32_t));
    // L2 promotion as Triton's launcher asks for; out-of-bounds elements read as zero.
    CUresult const result = driver().encode_tiled(&made, map_type(map.type), static_cast<cuuint32_t>(resolved.rank),
        base + resolved.offset, reinterpret_cast<cuuint64_t const*>(resolved.dims.data()),
        reinterpret_cast<cuuint64_t const*>(resolved.strides.data()), map.box.data(), kOnes.data(),
        CU_TENSOR_MAP_INTERLEAVE_NONE, map_swizzle(map.swizzle), CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS) {
        fail("kernel %.200s: the CUDA driver refuses tensor map %zu (error %d): address %p, %d dimensions",
            launch.name.c_str(), index, static_cast<int>(result), static_cast<void*>(base + resolved.offset),
            resolved.rank);
    }
}

}  // namespace

std::shared_ptr<Kernels const> Kernels::load(std::shared_ptr<Program const> program) {
    check_target(program->plan);
    return std::shared_ptr<Kernels const>(new Kernels(std::move(program)));
}

Kernels::Kernels(std::shared_ptr<Program const> program) : program_(std::move(program)) {
    for (std::size_t i = 0; i < program_->plan.images.size(); ++i) {
        modules_.push_back(Module::acquire(program_, static_cast<int>(i)));
    }
    for (Launch const& launch : program_->plan.launches) {
        try {
            functions_.push_back(modules_[static_cast<std::size_t>(launch.image)]->function(launch));
        } catch (Error const& error) {
            fail("kernel %.200s: %s", launch.name.c_str(), error.what());
        }
    }
}

void Kernels::launch(Values const& values, Pointers const& pointers, CUstream stream) const {
    if (pointers.workspace == nullptr && workspace_bytes(program_->plan, values) > 0) {
        fail("no workspace, expected %zu bytes of it", workspace_bytes(program_->plan, values));
    }
    for (std::size_t i = 0; i < functions_.size(); ++i) launch_one(i, values, pointers, stream);
}

void Kernels::launch_one(
    std::size_t index, Values const& values, Pointers const& pointers, CUstream stream) const {
    Launch const& launch = program_->plan.launches[index];
    ResolvedLaunch resolved;
    resolve(program_->plan, launch, values, resolved);
    if (resolved.empty) return;
    // Everything a launch reads is copied by the driver before it returns, so all of it may live on the stack.
    std::array<std::uint64_t, kMostArguments> scalars;
    std::array<CUtensorMap, kMostMaps> maps;  // aligned by their type, as TMA wants
    std::array<void*, kMostArguments> arguments;
    static_assert(alignof(CUtensorMap) >= 64);
    for (std::size_t i = 0; i < launch.arguments.size(); ++i) {
        Argument const& argument = launch.arguments[i];
        std::uint64_t& scalar = scalars[i];
        arguments[i] = &scalar;
        switch (argument.kind) {
            case ArgumentKind::kAddress:
                scalar = reinterpret_cast<std::uintptr_t>(base_of(argument.address, pointers) + resolved.numbers[i]);
                break;
            case ArgumentKind::kI32:
            case ArgumentKind::kI64: scalar = static_cast<std::uint64_t>(resolved.numbers[i]); break;
            case ArgumentKind::kF32:
                scalar = 0;
                static_assert(sizeof(argument.real) == 4);
                __builtin_memcpy(&scalar, &argument.real, 4);
                break;
            case ArgumentKind::kNull: scalar = 0; break;
            case ArgumentKind::kMap: {
                auto const at = static_cast<std::size_t>(argument.map);
                encode(launch, at, resolved.maps[at], base_of(launch.maps[at].at, pointers), maps[at]);
                arguments[i] = &maps[at];
                break;
            }
        }
    }
    std::array<CUlaunchAttribute, 2> attributes{};
    CUlaunchConfig config{};
    config.gridDimX = resolved.grid[0];
    config.gridDimY = resolved.grid[1];
    config.gridDimZ = resolved.grid[2];
    config.blockDimX = launch.block[0];
    config.blockDimY = launch.block[1];
    config.blockDimZ = launch.block[2];
    config.sharedMemBytes = launch.shared;
    config.hStream = stream;
    config.attrs = attributes.data();
    if (launch.cluster_size() > 1) {
        CUlaunchAttribute& attribute = attributes[config.numAttrs++];
        attribute.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        attribute.value.clusterDim.x = launch.cluster[0];
        attribute.value.clusterDim.y = launch.cluster[1];
        attribute.value.clusterDim.z = launch.cluster[2];
    }
    if (launch.programmatic) {
        CUlaunchAttribute& attribute = attributes[config.numAttrs++];
        attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        attribute.value.programmaticStreamSerializationAllowed = 1;
    }
    CUresult const result = driver().launch(&config, functions_[index], arguments.data(), nullptr);
    if (result != CUDA_SUCCESS) {
        char const* name = nullptr;
        driver().get_error_name(result, &name);
        fail("kernel %.200s: cuLaunchKernelEx: %s; grid %u %u %u, block %u %u %u, %u bytes shared, cluster of %u",
            launch.name.c_str(), name != nullptr ? name : "an unknown error", config.gridDimX, config.gridDimY,
            config.gridDimZ, config.blockDimX, config.blockDimY, config.blockDimZ, config.sharedMemBytes,
            launch.cluster_size());
    }
}

}  // namespace cat2dog
