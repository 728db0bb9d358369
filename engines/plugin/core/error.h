// What goes wrong, as one line of text for the user.
#pragma once

#include <stdexcept>

namespace cat2dog {

// Every expected failure of the core. Adapters catch it at the border to TensorRT, where nothing may be thrown.
class Error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

// Throws Error with a message in the manner of printf, cut at 1000 characters.
[[noreturn]] void fail(char const* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace cat2dog
