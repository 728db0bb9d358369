// Loaded images, one for each CUDA context and content: 25 layers with one kernel load it once.
#pragma once

#include <memory>

#include "driver.h"
#include "program.h"

namespace cat2dog {

class Module {
public:
    // The module of an image in the current context, loaded now unless it is alive already.
    static std::shared_ptr<Module> acquire(std::shared_ptr<Program const> const& program, int image);

    ~Module();
    Module(Module const&) = delete;
    Module& operator=(Module const&) = delete;

    // A kernel of it, ready for launches with that much dynamic shared memory and that many blocks in a cluster.
    CUfunction function(Launch const& launch);

private:
    Module(std::shared_ptr<Program const> program, int image, CUcontext context);
    bool holds(Program const& program, int image, CUcontext context) const noexcept;

    std::shared_ptr<Program const> program_;
    int image_;
    CUcontext context_;
    CUmodule module_ = nullptr;
};

}  // namespace cat2dog
