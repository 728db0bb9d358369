// The kernels of one program, loaded into one CUDA context.
#pragma once

#include <memory>
#include <vector>

#include "driver.h"
#include "program.h"
#include "resolve.h"

namespace cat2dog {

class Module;

// Where the tensors of one call are.
struct Pointers {
    void const* const* inputs;
    void* const* outputs;
    void* workspace;
};

class Kernels {
public:
    // Loads what is not loaded yet into the calling thread's context; programs with equal images share modules. Raises
    // Error where the images are for another GPU or the driver refuses them.
    static std::shared_ptr<Kernels const> load(std::shared_ptr<Program const> program);

    // Gives all launches to the stream. From any thread, several at once; takes no memory from the heap, waits for
    // nothing, and may be captured in a CUDA graph. Raises Error where a number does not fit or the driver refuses.
    void launch(Values const& values, Pointers const& pointers, CUstream stream) const;

private:
    explicit Kernels(std::shared_ptr<Program const> program);
    void launch_one(std::size_t index, Values const& values, Pointers const& pointers, CUstream stream) const;

    std::shared_ptr<Program const> program_;
    std::vector<std::shared_ptr<Module>> modules_;  // by image
    std::vector<CUfunction> functions_;             // by launch
};

}  // namespace cat2dog
