#include "error.h"

#include <cstdarg>
#include <cstdio>

namespace cat2dog {

void fail(char const* format, ...) {
    char message[1000];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    throw Error(message);
}

}  // namespace cat2dog
