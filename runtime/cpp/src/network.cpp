#include "network.h"

#include "error.h"

namespace cat2dog {

std::array<Tensor, 4> const& tensors() {
    static std::array<Tensor, 4> const all{{
        {"crop", true, {-1, kCrop, kCrop, 3}, sizeof(Crop)},
        {"logits", false, {-1, kClasses}, sizeof(Outputs::logits)},
        {"embedding", false, {-1, 2048}, sizeof(Outputs::embedding)},
        {"statistics", false, {-1, 2}, sizeof(Outputs::statistics)},
    }};
    return all;
}

void check_tensor(std::string const& path, std::string const& name, bool is_input, bool has_right_type,
                  std::vector<std::int64_t> const& shape) {
    for (Tensor const& expected : tensors()) {
        if (name != expected.name || is_input != expected.is_input) continue;
        bool fits = has_right_type && shape.size() == expected.shape.size();
        for (std::size_t axis = 1; fits && axis < shape.size(); ++axis) fits = shape[axis] == expected.shape[axis];
        if (fits) return;
    }
    throw bad_input(path + " is no network of this family: it has a tensor '" + name +
                    "' of another kind; export --recipe zoo.resnet50.recipe:resnet50");
}

std::unique_ptr<Network> open_network(std::string const& path, NetworkOptions const& options) {
    if (ends_with(path, ".engine")) return open_engine(path, options);
    if (ends_with(path, ".onnx")) return open_onnx(path, options);
    throw bad_input(path + " is neither an engine nor an ONNX file; expected a file ending in .engine or .onnx");
}

}  // namespace cat2dog
