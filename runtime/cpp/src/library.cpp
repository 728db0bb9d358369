#include "library.h"

#include <dlfcn.h>

#include "error.h"

namespace cat2dog {

Library::Library(std::vector<std::string> const& names, std::string const& what, std::string const& advice) {
    std::string why;
    for (std::string const& name : names) {
        // RTLD_LAZY: TensorRT leaves functions open that only its builder calls. RTLD_GLOBAL: plugins look for it.
        handle_ = ::dlopen(name.c_str(), RTLD_LAZY | RTLD_GLOBAL);
        if (handle_ != nullptr) {
            name_ = name;
            return;
        }
        if (why.empty()) why = ::dlerror();
    }
    throw bad_input(what + " cannot be loaded (" + why + "); " + advice);
}

void* Library::find(char const* name) const {
    void* const found = ::dlsym(handle_, name);
    if (found == nullptr) throw bad_input(name_ + " has no " + name + ": it is another library, or too old");
    return found;
}

}  // namespace cat2dog
