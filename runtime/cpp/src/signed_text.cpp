#include "signed_text.h"

#include <algorithm>
#include <stdexcept>

#include "canonical.h"
#include "sha256.h"
#include "strict.h"

namespace cat2dog {
namespace {

using namespace strict;

constexpr char const* kContext = "cat2dog engine 1\n";  // so that a signature of anything else is none of an engine

// The dataclasses of runtime/manifest.py.
Reader key() {
    return object({
        {"checkpoint", text},
        {"onnx_sha256", hash},
        {"weights_sha256", hash},
        {"precision", one_of({"fp32", "fp16", "bf16"})},
        {"attention", one_of({"plugin", "native", "decomposed", "auto", "none"})},
        {"flavor", text},
        {"flavor_version", text},
        {"batch", batch},
        {"gpu", or_null(text)},
        {"compute_capability", or_null(capability)},
        {"targets", list(capability)},
        {"kernels", list(text)},
        {"options", mapping(scalar)},
    });
}

Reader gate() {
    return object({
        {"state", one_of({"passed", "failed", "pending"})},
        {"metric", text},
        {"threshold", number},
        {"against", text},
        {"scores", list(score)},
        {"proxy_scores", list(score)},
        {"note", text},
    });
}

Reader build() {
    return object({
        {"seconds", number},
        {"peak_memory_bytes", integer},
        {"date", text},
        {"command", text},
        {"versions", mapping(text)},
        {"notes", list(text)},
    });
}

Reader tensor() {
    return object({{"name", text}, {"mode", one_of({"input", "output"})}, {"dtype", text}, {"shape", list(dimension)}});
}

Reader choice(Reader form) {
    return object({{"node", text}, {"form", std::move(form)}, {"why", text}, {"milliseconds", mapping(number)}});
}

Reader manifest() {
    return object({
        {"seal", hash},
        {"schema", integer},
        {"engine", engine_name},
        {"sha256", hash},
        {"size", integer},
        {"key8", text},
        {"key", key()},
        {"gate", gate()},
        {"build", build()},
        {"tensors", list(tensor())},
        {"attention", list(choice(one_of({"plugin", "native", "decomposed", "auto", "none"})))},
        {"linear", list(choice(one_of({"plugin", "tensorrt"})))},
    });
}

void drop(Json& object, std::initializer_list<char const*> names) {
    auto const dropped = [&](auto const& field) {
        return std::find(names.begin(), names.end(), field.first) != names.end();
    };
    object.fields.erase(std::remove_if(object.fields.begin(), object.fields.end(), dropped), object.fields.end());
}

// Manifests of before there was a choice lack `linear`.
Json with_linear(Json json) {
    if (json.find("linear") == nullptr) {
        Json none;
        none.kind = Json::Kind::kList;
        json.fields.emplace_back("linear", std::move(none));
    }
    return json;
}

}  // namespace

std::string signed_text(Json const& json) {
    if (json.kind != Json::Kind::kObject) throw std::invalid_argument("manifest is no object");
    Json content = manifest()(with_linear(json), "manifest");
    Json const& of = content.at("key");
    if (of.at("targets").list.empty() && (of.at("gpu").is_null() || of.at("compute_capability").is_null())) {
        throw std::invalid_argument("manifest.key names neither targets nor a gpu with its compute_capability");
    }
    if (content.at("schema").as_integer() != 2) throw std::invalid_argument("its schema is another than 2");
    std::string const text_of_key = canonical(of);
    std::string const key8 = sha256(reinterpret_cast<std::uint8_t const*>(text_of_key.data()), text_of_key.size()).substr(0, 8);
    if (content.at("key8").as_text() != key8) throw std::invalid_argument("its key8 is not that of its key, " + key8);
    drop(content, {"seal", "schema", "key8"});
    for (auto& [name, value] : content.fields) {
        if (name == "gate") drop(value, {"state", "scores", "proxy_scores", "note"});
    }
    return kContext + canonical(content);
}

}  // namespace cat2dog
