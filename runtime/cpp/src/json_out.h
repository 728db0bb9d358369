// The JSON lines of `--json`, as `python -m zoo.resnet50 --json` writes them.
#pragma once

#include <string>

#include "answer.h"

namespace cat2dog {

struct Milliseconds {
    double decode;
    double preprocess;
    double network;
    double postprocess;
};

std::string about_json(std::string const& about);
std::string seen_json(std::size_t number, Answer const& answer, std::string const& crop_sha256, Milliseconds const& ms);
std::string fault_json(std::size_t number, std::string const& fault);

}  // namespace cat2dog
