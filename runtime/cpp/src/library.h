// Shared libraries that are found while the program runs, so that it builds and starts where they are not.
#pragma once

#include <string>
#include <vector>

namespace cat2dog {

class Library {
public:
    // The first of `names` that loads, with its symbols for all. Raises Error (bad input) with `advice` where none does.
    Library(std::vector<std::string> const& names, std::string const& what, std::string const& advice);

    // Raises Error (bad input) where there is none of that name. Libraries stay loaded until the process ends: CUDA's
    // and TensorRT's do not bear being unloaded.
    template <typename Function>
    Function symbol(char const* name) const {
        return reinterpret_cast<Function>(find(name));
    }

private:
    void* find(char const* name) const;
    void* handle_ = nullptr;
    std::string name_;
};

}  // namespace cat2dog
