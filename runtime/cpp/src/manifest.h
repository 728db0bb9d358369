// What is known about an engine or an exported graph: `X.json` beside `X.engine` or `X.onnx`.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "files.h"
#include "json.h"

namespace cat2dog {

// Of an engine, what decides whether it may be used here.
struct EngineManifest {
    std::string sha256;
    std::uint64_t size = 0;
    std::string flavor;
    std::string flavor_version;
    std::string gpu;                   // empty where `targets` are given
    std::string compute_capability;    // "9.0"
    std::vector<std::string> targets;  // of a plan built ahead of time
    std::string compatibility;         // builder option hardware_compatibility
    std::string gate;                  // passed, failed, pending
    std::string rebuild;               // the command
    bool needs_plugin = false;
    Json content;  // all of it, which is what is signed
};

// An engine's manifest as it is stored. Raises std::invalid_argument where it is no JSON or its seal is another's.
Json parse_sealed(std::string_view text);

// Raises Error: foreign for a missing or damaged manifest, refused by the gate for an engine that has failed it, bad
// input for one whose gate is still to be run.
EngineManifest read_engine_manifest(std::string const& engine);

// Raise Error (foreign) unless `plan` has the size, and the hash, of what was built.
void check_size(std::string const& engine, EngineManifest const& manifest, MappedFile const& plan);
void check_plan(std::string const& engine, EngineManifest const& manifest, MappedFile const& plan);

// Raises Error (foreign) unless TensorRT's version and the GPU are those that the engine was built for.
void check_machine(std::string const& engine, EngineManifest const& manifest, std::string const& version,
                   std::string const& gpu, std::string const& compute_capability);

// Raises Error (foreign) unless an exported graph and its data are what its manifest says.
void check_onnx(std::string const& graph);

}  // namespace cat2dog
