#include "modules.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

#include "error.h"

namespace cat2dog {
namespace {

// Kernels that use more than this must ask for it.
constexpr std::uint32_t kPlainShared = 48 * 1024;
constexpr std::uint32_t kPortableCluster = 8;

struct Cache {
    std::mutex mutex;
    std::vector<std::weak_ptr<Module>> modules;
};

// Never destroyed: plugins may outlive this library's static objects at the end of the process.
Cache& cache() {
    static Cache& only = *new Cache;
    return only;
}

}  // namespace

std::shared_ptr<Module> Module::acquire(std::shared_ptr<Program const> const& program, int image) {
    CUcontext context = nullptr;
    driver().check(driver().context_current(&context), "cuCtxGetCurrent");
    if (context == nullptr) fail("no CUDA context is current in this thread: expected TensorRT to have made one");
    std::lock_guard<std::mutex> const lock(cache().mutex);
    std::vector<std::weak_ptr<Module>>& modules = cache().modules;
    modules.erase(std::remove_if(modules.begin(), modules.end(), [](auto const& each) { return each.expired(); }),
        modules.end());
    for (std::weak_ptr<Module> const& each : modules) {
        std::shared_ptr<Module> alive = each.lock();
        if (alive != nullptr && alive->holds(*program, image, context)) return alive;
    }
    std::shared_ptr<Module> made(new Module(program, image, context));
    modules.push_back(made);
    return made;
}

Module::Module(std::shared_ptr<Program const> program, int image, CUcontext context)
    : program_(std::move(program)), image_(image), context_(context) {
    driver().check(driver().module_load(&module_, program_->image(image_)), "cuModuleLoadData");
}

Module::~Module() {
    // Results are not looked at: at the end of the process the context, or the driver itself, may be gone before.
    CUcontext popped = nullptr;
    if (driver().context_push(context_) != CUDA_SUCCESS) return;
    driver().module_unload(module_);
    driver().context_pop(&popped);
}

bool Module::holds(Program const& program, int image, CUcontext context) const noexcept {
    // The bytes, not their hash alone: FNV tells damage from soundness, not every two kernels apart.
    Image const& mine = program_->plan.images[static_cast<std::size_t>(image_)];
    Image const& other = program.plan.images[static_cast<std::size_t>(image)];
    return context == context_ && mine.fnv == other.fnv && mine.length == other.length &&
        std::memcmp(program_->image(image_), program.image(image), mine.length) == 0;
}

CUfunction Module::function(Launch const& launch) {
    Driver const& cuda = driver();
    CUfunction function = nullptr;
    cuda.check(cuda.module_function(&function, module_, launch.name.c_str()), "cuModuleGetFunction");
    // With lazy loading the first launch would load the kernel, which a stream capture does not forgive.
    if (cuda.function_load != nullptr) cuda.check(cuda.function_load(function), "cuFuncLoad");
    // The attribute belongs to the function, which launches with other sizes share: it may only grow.
    std::lock_guard<std::mutex> const lock(cache().mutex);
    int most = 0;
    constexpr auto kShared = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    cuda.check(cuda.function_attribute(&most, kShared, function), "cuFuncGetAttribute");
    auto const wanted = static_cast<int>(launch.shared);
    if (most < wanted) {
        cuda.check(cuda.set_function_attribute(function, kShared, wanted), "cuFuncSetAttribute of shared memory");
    }
    if (launch.shared > kPlainShared) {
        // A preference only; Triton's own launcher states it too, and kernels are timed with that.
        cuda.check(cuda.set_cache_config(function, CU_FUNC_CACHE_PREFER_SHARED), "cuFuncSetCacheConfig");
    }
    if (launch.cluster_size() > kPortableCluster) {
        constexpr auto kCluster = CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED;
        cuda.check(cuda.set_function_attribute(function, kCluster, 1), "cuFuncSetAttribute of cluster size");
    }
    return function;
}

}  // namespace cat2dog
