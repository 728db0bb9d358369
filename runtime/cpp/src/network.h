// What runs the network: a plan in TensorRT or a graph in ONNX Runtime.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "picture.h"

namespace cat2dog {

constexpr std::size_t kClasses = 1000;

struct Outputs {
    std::array<float, kClasses> logits;
    std::array<float, 2048> embedding;
    std::array<float, 2> statistics;  // mean and unbiased variance of the embedding
};

// An input or output that a network must have; -1 is the batch.
struct Tensor {
    char const* name;
    bool is_input;
    std::vector<std::int64_t> shape;
    std::size_t bytes;  // of one sample
};

// The input `crop`, uint8, and the outputs, float32.
std::array<Tensor, 4> const& tensors();

// Raises Error (bad input) unless a tensor of the network in `path` is the expected one: its batch may be any.
void check_tensor(std::string const& path, std::string const& name, bool is_input, bool has_right_type,
                  std::vector<std::int64_t> const& shape);

class Network {
public:
    virtual ~Network() = default;
    virtual void infer(Crop const& crop, Outputs& outputs) = 0;
    // What it is, in words: "ONNX Runtime 1.32.0, CPU".
    virtual std::string about() const = 0;
};

struct NetworkOptions {
    std::string library;               // of TensorRT or ONNX Runtime; empty: where the loader finds it
    std::vector<std::string> plugins;  // of TensorRT
    int threads = 0;                   // of ONNX Runtime; 0: its own choice
    std::optional<std::string> signed_by;  // public keys: only engines signed by one of them are loaded
};

// Checks the file against its manifest and loads it. Raises Error.
std::unique_ptr<Network> open_network(std::string const& path, NetworkOptions const& options);
std::unique_ptr<Network> open_engine(std::string const& path, NetworkOptions const& options);
// "TensorRT 10"; empty where the runner was built without its headers.
std::string engines_of();
std::unique_ptr<Network> open_onnx(std::string const& path, NetworkOptions const& options);

}  // namespace cat2dog
