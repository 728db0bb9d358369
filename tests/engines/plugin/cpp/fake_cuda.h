// A stand-in for libcuda.so.1 that runs no kernel and remembers every launch. Its device memory is the host's.
//
// Its images are text: "FAKE", then a line "NAME SIZE SIZE ..." for each kernel, with the sizes in bytes of its
// arguments, then "end". So it can tell what the arguments of a launch are, which a real driver reads from the cubin.
#pragma once

#include <cuda.h>

#include <cstdint>

constexpr int kFakeMostArguments = 32;

struct FakeLaunch {
    char kernel[64];
    int module;  // number of the load that its function is from
    int context;
    unsigned grid[3];
    unsigned block[3];
    unsigned shared;
    unsigned most_shared;  // what the function had been allowed
    unsigned cluster[3];
    bool programmatic;
    bool capturing;
    CUstream stream;
    int arguments;
    unsigned char values[kFakeMostArguments][128];
};

// What cuTensorMapEncodeTiled leaves in the descriptor.
struct FakeMap {
    void* address;
    int type;
    int rank;
    int swizzle;
    std::uint32_t box[5];
    std::uint64_t dims[5];
    std::uint64_t strides[4];
};
static_assert(sizeof(FakeMap) <= sizeof(CUtensorMap));

struct FakeCounts {
    int loads;
    int unloads;
    int launches;
    int waits;          // synchronisations
    int context_depth;  // pushes less pops
    int attribute_sets;
};

extern "C" {
void fake_reset();  // forgets launches and counts
FakeCounts fake_counts();
FakeLaunch const* fake_launch(int index);
void fake_set_capability(int major, int minor);
void fake_set_context(int number);  // of this thread; 0 for none
void fake_fail_launches(bool fail);
}
