#include "manifest.h"

#include <algorithm>
#include <filesystem>
#include <stdexcept>

#include "error.h"
#include "json.h"
#include "sha256.h"

namespace cat2dog {
namespace {

constexpr std::size_t kMostEngineManifest = 1 << 20;
constexpr std::size_t kMostOnnxManifest = 4 << 20;
constexpr std::size_t kMostFiles = 16;
constexpr int kSchema = 2;  // of runtime/manifest.py

std::string manifest_path(std::string const& path) { return std::filesystem::path(path).replace_extension(".json").string(); }

// Of an engine's manifest the first field is the SHA-256 of all that follows it.
void check_seal(std::string_view text) {
    constexpr std::string_view kBefore = "{\n  \"seal\": \"";
    constexpr std::string_view kAfter = "\",\n";
    std::size_t const length = kBefore.size() + 64 + kAfter.size();
    if (text.substr(0, kBefore.size()) != kBefore || text.size() < length ||
        text.substr(kBefore.size() + 64, kAfter.size()) != kAfter) {
        throw std::invalid_argument("it has no seal, as older versions wrote it");
    }
    std::string_view const rest = text.substr(length);
    if (sha256(reinterpret_cast<std::uint8_t const*>(rest.data()), rest.size()) != text.substr(kBefore.size(), 64)) {
        throw std::invalid_argument("it was altered: its seal is of another text");
    }
}

enum class Seal { kNone, kFirstField };

Json read_json(std::string const& path, std::size_t most, Seal seal, std::string const& advice) {
    std::string const manifest = manifest_path(path);
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path, ignored)) {
        throw bad_input(path + " does not exist or is no file; " + advice);
    }
    if (!std::filesystem::is_regular_file(manifest, ignored)) {
        throw foreign(path + " has no manifest " + file_name(manifest) + " beside it; " + advice);
    }
    Bytes content;
    try {
        content = read_file(manifest, most);
        std::string_view const text(reinterpret_cast<char const*>(content.data()), content.size());
        return seal == Seal::kFirstField ? parse_sealed(text) : Json::parse(text);
    } catch (Error const& error) {
        throw foreign("manifest " + std::string(error.what()) + "; " + advice);
    } catch (std::invalid_argument const& error) {
        throw foreign("manifest " + manifest + " is damaged: " + error.what() + "; " + advice);
    }
}

std::string text_or_none(Json const& value) { return value.is_null() ? "" : value.as_text(); }

std::string hash_in(Json const& value) {
    std::string const& hash = value.as_text();
    bool const hex = std::all_of(hash.begin(), hash.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
    if (hash.size() != 64 || !hex) throw std::invalid_argument("a hash is not 64 hex digits");
    return hash;
}

bool has_plugin(Json const& manifest, std::string const& of) {
    Json const* const choices = manifest.find(of);
    if (choices == nullptr) return false;
    auto const& all = choices->as_list();
    return std::any_of(all.begin(), all.end(), [](Json const& each) { return each.at("form").as_text() == "plugin"; });
}

EngineManifest parsed(Json const& json) {
    EngineManifest made;
    if (json.at("schema").as_integer() != kSchema) {
        throw std::invalid_argument("its schema is another than " + std::to_string(kSchema));
    }
    Json const& key = json.at("key");
    Json const& options = key.at("options");
    made.sha256 = hash_in(json.at("sha256"));
    std::int64_t const size = json.at("size").as_integer();
    if (size < 0) throw std::invalid_argument("its size is negative");
    made.size = static_cast<std::uint64_t>(size);
    made.flavor = key.at("flavor").as_text();
    made.flavor_version = key.at("flavor_version").as_text();
    made.gpu = text_or_none(key.at("gpu"));
    made.compute_capability = text_or_none(key.at("compute_capability"));
    for (Json const& each : key.at("targets").as_list()) made.targets.push_back(each.as_text());
    if (made.targets.empty() && (made.gpu.empty() || made.compute_capability.empty())) {
        throw std::invalid_argument("it names neither targets nor a gpu");
    }
    if (Json const* const level = options.find("hardware_compatibility")) made.compatibility = text_or_none(*level);
    made.gate = json.at("gate").at("state").as_text();
    if (made.gate != "passed" && made.gate != "failed" && made.gate != "pending") {
        throw std::invalid_argument("its gate is of an unknown state");
    }
    made.rebuild = json.at("build").at("command").as_text();
    made.needs_plugin = has_plugin(json, "attention") || has_plugin(json, "linear");
    return made;
}

std::string advice(EngineManifest const& manifest) { return "build it again: `" + manifest.rebuild + "`"; }

// "8.6.0" of "8.6.0" and of "8.6.0.12"; a library does not tell more of itself.
std::string three_parts(std::string const& version) {
    std::size_t end = 0;
    for (int part = 0; part < 3 && end != std::string::npos; ++part) end = version.find('.', end + (part != 0));
    return version.substr(0, end);
}

bool fits(EngineManifest const& manifest, std::string const& gpu, std::string const& capability) {
    if (!manifest.targets.empty()) {
        return std::find(manifest.targets.begin(), manifest.targets.end(), capability) != manifest.targets.end();
    }
    // Values of TensorRT's HardwareCompatibilityLevel.
    if (manifest.compatibility == "ampere_plus") return std::stoi(capability) >= 8;
    if (manifest.compatibility == "same_compute_capability") return capability == manifest.compute_capability;
    return gpu == manifest.gpu && capability == manifest.compute_capability;
}

void check_file(std::string const& path, std::string const& name, Json const& known) {
    std::string const advice = "; export it again with `cat2dog export`";
    // A name from a manifest leads to no other folder.
    if (name.empty() || file_name(name) != name) throw std::invalid_argument("it names a file in another folder");
    std::string const file = beside(path, name);
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(file, ignored)) throw foreign(file + " is missing" + advice);
    MappedFile const content(file);
    bool const same = static_cast<std::int64_t>(content.size()) == known.at("size").as_integer() &&
                      sha256(content.data(), content.size()) == hash_in(known.at("sha256"));
    if (!same) throw foreign(file + " is not what was exported" + advice);
}

}  // namespace

Json parse_sealed(std::string_view text) {
    check_seal(text);
    return Json::parse(text);
}

EngineManifest read_engine_manifest(std::string const& engine) {
    Json json = read_json(engine, kMostEngineManifest, Seal::kFirstField, "build it with `cat2dog build`");
    EngineManifest manifest;
    try {
        manifest = parsed(json);
        manifest.content = std::move(json);
    } catch (std::invalid_argument const& error) {
        throw foreign("manifest " + manifest_path(engine) + " is damaged: " + error.what() + "; build it again");
    }
    if (manifest.gate == "failed") {
        throw Error(Exit::kRefusedByGate, "engine " + engine + " was refused by the accuracy gate; `cat2dog accuracy` finds the diverging layer");
    }
    if (manifest.gate == "pending") {
        throw bad_input("engine " + engine + " has not passed its gate yet; `cat2dog accuracy --engine " + engine + "` runs it");
    }
    return manifest;
}

void check_size(std::string const& engine, EngineManifest const& manifest, MappedFile const& plan) {
    if (plan.size() != manifest.size) {
        throw foreign("engine " + engine + " has " + std::to_string(plan.size()) + " bytes, but " +
                      std::to_string(manifest.size) + " were built; " + advice(manifest));
    }
}

void check_plan(std::string const& engine, EngineManifest const& manifest, MappedFile const& plan) {
    std::string const actual = sha256(plan.data(), plan.size());
    if (actual != manifest.sha256) {
        throw foreign("engine " + engine + " was altered: its sha256 begins with " + actual.substr(0, 12) + ", but " +
                      manifest.sha256.substr(0, 12) + " was built; " + advice(manifest));
    }
}

void check_machine(std::string const& engine, EngineManifest const& manifest, std::string const& version,
                   std::string const& gpu, std::string const& compute_capability) {
    if (manifest.flavor != "tensorrt" || three_parts(manifest.flavor_version) != three_parts(version)) {
        throw foreign("engine " + engine + " was built by " + manifest.flavor + " " + manifest.flavor_version +
                      ", but here is tensorrt " + version + "; " + advice(manifest));
    }
    if (!fits(manifest, gpu, compute_capability)) {
        throw foreign("engine " + engine + " was built for another GPU than " + gpu + " (compute capability " +
                      compute_capability + "); " + advice(manifest));
    }
}

void check_onnx(std::string const& graph) {
    Json const json = read_json(graph, kMostOnnxManifest, Seal::kNone, "export it again with `cat2dog export`");
    try {
        auto const& files = json.at("files").fields;
        if (files.empty() || files.size() > kMostFiles) throw std::invalid_argument("it names no files, or too many");
        if (json.at("files").find(file_name(graph)) == nullptr) throw std::invalid_argument("it is of another graph");
        for (auto const& [name, known] : files) check_file(graph, name, known);
    } catch (std::invalid_argument const& error) {
        throw foreign("manifest " + manifest_path(graph) + " is damaged: " + error.what() + "; export it again");
    }
}

}  // namespace cat2dog
