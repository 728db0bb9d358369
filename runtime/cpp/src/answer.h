// What the network answers, as a person reads it.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "network.h"

namespace cat2dog {

struct Answer {
    std::array<int, 2> classes;
    std::array<double, 2> percent;
    double mean;
    double variance;
    std::array<double, 2> margins;  // first logit less second, second less third
};

// Raises Error (failed) where a value is not finite.
Answer answer_of(Outputs const& outputs);

// The two lines about picture `number`, counted from 1.
std::string lines(Answer const& answer, std::size_t number, std::vector<std::string> const& labels);

// A file's 1000 lines, or `class 0` to `class 999` where `path` is empty. Raises Error (bad input).
std::vector<std::string> read_labels(std::string const& path);

}  // namespace cat2dog
