// host_test LIBRARY --fake FAKE_DRIVER [--old-driver]
//     every check of the adapter in LIBRARY, without GPU
//
// host_test LIBRARY --gpu LAUNCH IMAGES [--driver LIBCUDA] [--device N] [--max-abs X] [--rms X] [--repeat N]
//           --input TYPE:SIZES:FILE ... --output TYPE:SIZES:FILE ...
//     one plan on a real GPU: LAUNCH is the plan's text, IMAGES its images one after the other. TYPE is fp16, bf16, fp32,
//     i32, u8 or i8; SIZES like 2x256x3840; FILE the raw tensor, an input's values or the output's expected ones. Goes
//     through the plugin as TensorRT does: create, serialize, deserialize, attach; then two threads with two streams each
//     run it eagerly and from a captured CUDA graph and print the largest and the rms error, and microseconds a launch.
//     Exit code 0 where all of them are within --max-abs (0.02) and --rms (0.002). Needs no TensorRT: this program plays it.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "checks.h"
#include "host.h"

namespace {

int usage() {
    std::fprintf(stderr, "usage: host_test LIBRARY --fake FAKE_DRIVER [--old-driver]\n"
                         "       host_test LIBRARY --gpu LAUNCH IMAGES --input TYPE:SIZES:FILE ... "
                         "--output TYPE:SIZES:FILE ...\n");
    return 2;
}

int run(int count, char** arguments) {
    if (count < 4) return usage();
    bool const fake = std::strcmp(arguments[2], "--fake") == 0;
    if (!fake && std::strcmp(arguments[2], "--gpu") != 0) return usage();
    if (fake) ::setenv("CAT2DOG_LIBCUDA", arguments[3], 1);
    host::library = ::dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    if (host::library == nullptr) {
        std::fprintf(stderr, "error: %s\n", ::dlerror());
        return 2;
    }
    if (!fake) return host::run_gpu(count - 3, arguments + 3);
    void* const driver = ::dlopen(arguments[3], RTLD_NOW | RTLD_LOCAL);
    if (driver == nullptr) {
        std::fprintf(stderr, "error: %s\n", ::dlerror());
        return 2;
    }
    return host::run_checks(arguments[1], driver, count > 4 && std::strcmp(arguments[4], "--old-driver") == 0) == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    try {
        return run(count, arguments);
    } catch (std::exception const& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
}
