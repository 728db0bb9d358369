#include "answer.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "error.h"

namespace cat2dog {
namespace {

constexpr std::size_t kMostLabelBytes = 1 << 20;

template <typename... Values>
std::string formatted(char const* format, Values... values) {
    char text[128];
    std::snprintf(text, sizeof text, format, values...);
    return text;
}

}  // namespace

Answer answer_of(Outputs const& outputs) {
    auto const finite = [](float value) { return std::isfinite(value); };
    if (!std::all_of(outputs.logits.begin(), outputs.logits.end(), finite) ||
        !std::all_of(outputs.statistics.begin(), outputs.statistics.end(), finite)) {
        throw failed("the network answered with values that are not finite: build it again in fp32 or bf16");
    }
    std::array<int, kClasses> order{};
    std::iota(order.begin(), order.end(), 0);
    auto const logit = [&](int index) { return static_cast<double>(outputs.logits[static_cast<std::size_t>(index)]); };
    // Of equal ones the lower class first.
    std::partial_sort(order.begin(), order.begin() + 3, order.end(), [&](int a, int b) {
        return logit(a) != logit(b) ? logit(a) > logit(b) : a < b;
    });
    double sum = 0;
    for (float const each : outputs.logits) sum += std::exp(static_cast<double>(each) - logit(order[0]));
    return {{order[0], order[1]},
            {100 / sum, 100 * std::exp(logit(order[1]) - logit(order[0])) / sum},
            outputs.statistics[0],
            outputs.statistics[1],
            {logit(order[0]) - logit(order[1]), logit(order[1]) - logit(order[2])}};
}

std::string lines(Answer const& answer, std::size_t number, std::vector<std::string> const& labels) {
    auto const part = [&](std::size_t which) {
        return formatted("%.2f%% a ", answer.percent[which]) + labels[static_cast<std::size_t>(answer.classes[which])];
    };
    std::string const image = "image #" + std::to_string(number);
    return formatted("mean: %.6f variance: %.6f of ", answer.mean, answer.variance) + image + "\n" + image + " is " +
           part(0) + " and " + part(1) + "\n";
}

std::vector<std::string> read_labels(std::string const& path) {
    std::vector<std::string> labels;
    if (path.empty()) {
        for (std::size_t i = 0; i < kClasses; ++i) labels.push_back("class " + std::to_string(i));
        return labels;
    }
    Bytes const content = read_file(path, kMostLabelBytes);
    std::string line;
    bool control = false;
    for (std::uint8_t const c : content) {
        if (c == '\n') {
            labels.push_back(std::move(line));
            line.clear();
            continue;
        }
        control = control || c < 32;
        line += static_cast<char>(c);
    }
    if (!line.empty()) labels.push_back(line);
    if (labels.size() != kClasses || control) {
        throw bad_input("labels " + path + " has " + std::to_string(labels.size()) + " lines; expected " +
                        std::to_string(kClasses) + ", a name each");
    }
    return labels;
}

}  // namespace cat2dog
