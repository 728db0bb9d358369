// Two kernels that use all that a launch plan can say: `scale` reads its tile with TMA, in clusters of two blocks, and
// leaves it in the workspace; `shift` may start before `scale` has ended. Together: output = input * factor + shift.
#include <cuda.h>
#include <cuda_fp16.h>

#include <cstdint>

constexpr int kRows = 128;
constexpr int kColumns = 64;

extern "C" __global__ void scale(const __grid_constant__ CUtensorMap map, float* workspace, float factor, int rows) {
    extern __shared__ __align__(128) __half tile[];
    __shared__ __align__(8) std::uint64_t barrier;
    auto const shared_tile = static_cast<std::uint32_t>(__cvta_generic_to_shared(tile));
    auto const shared_barrier = static_cast<std::uint32_t>(__cvta_generic_to_shared(&barrier));
    int const row = static_cast<int>(blockIdx.x) * kRows;
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(shared_barrier));
        asm volatile("fence.proxy.async.shared::cta;");
        asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_barrier),
                     "r"(kRows * kColumns * static_cast<int>(sizeof(__half))));
        asm volatile(
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
                shared_tile),
            "l"(&map), "r"(0), "r"(row), "r"(shared_barrier)
            : "memory");
    }
    __syncthreads();
    std::uint32_t done = 0;
    while (done == 0) {
        asm volatile(
            "{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], 0; selp.u32 %0, 1, 0, p; }"
            : "=r"(done)
            : "r"(shared_barrier)
            : "memory");
    }
    for (int i = static_cast<int>(threadIdx.x); i < kRows * kColumns; i += static_cast<int>(blockDim.x)) {
        if (row + i / kColumns < rows) workspace[row * kColumns + i] = __half2float(tile[i]) * factor;
    }
}

extern "C" __global__ void shift(float const* workspace, __half* output, void const* nothing, int shift, long long count) {
    asm volatile("griddepcontrol.wait;" ::: "memory");
    long long const i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count && nothing == nullptr) output[i] = __float2half(workspace[i] + static_cast<float>(shift));
}
