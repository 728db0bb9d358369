#include "json_out.h"

#include <cstdio>

namespace cat2dog {
namespace {

// As many digits as bring a double back.
std::string number(double value) {
    char text[40];
    std::snprintf(text, sizeof text, "%.17g", value);
    return text;
}

std::string pair(double first, double second) { return "[" + number(first) + ", " + number(second) + "]"; }

// Bytes that are no ASCII are given as they are, but for control characters.
std::string quoted(std::string const& text) {
    std::string made = "\"";
    for (char const c : text) {
        if (c == '"' || c == '\\') made += '\\';
        made += static_cast<unsigned char>(c) < 32 ? ' ' : c;
    }
    return made + '"';
}

}  // namespace

std::string about_json(std::string const& about) { return "{\"runner\": " + quoted(about) + "}"; }

std::string seen_json(std::size_t image, Answer const& answer, std::string const& crop_sha256, Milliseconds const& ms) {
    return "{\"image\": " + std::to_string(image) + ", \"classes\": [" + std::to_string(answer.classes[0]) + ", " +
           std::to_string(answer.classes[1]) + "], \"percent\": " + pair(answer.percent[0], answer.percent[1]) +
           ", \"mean\": " + number(answer.mean) + ", \"variance\": " + number(answer.variance) +
           ", \"margins\": " + pair(answer.margins[0], answer.margins[1]) + ", \"crop_sha256\": \"" + crop_sha256 +
           "\", \"ms\": {\"decode\": " + number(ms.decode) + ", \"preprocess\": " + number(ms.preprocess) +
           ", \"network\": " + number(ms.network) + ", \"postprocess\": " + number(ms.postprocess) + "}}";
}

std::string fault_json(std::size_t image, std::string const& fault) {
    return "{\"image\": " + std::to_string(image) + ", \"fault\": " + quoted(fault) + "}";
}

}  // namespace cat2dog
