// The command line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "network.h"

namespace cat2dog {

struct Options {
    std::vector<std::string> images;
    std::string network;
    std::string labels;
    std::uint64_t seed = 0;
    int rounds = 1;
    bool json = false;
    NetworkOptions loading;
    std::string said;  // help or version, to be printed instead of any work
};

// Where no --signed-by is given, the variable CAT2DOG_SIGNED_BY counts. Raises Error (bad input) for wrong usage.
Options parse_options(std::vector<std::string> const& words);

}  // namespace cat2dog
