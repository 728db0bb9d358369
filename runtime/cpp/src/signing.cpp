#include "signing.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <stdexcept>

#include "ed25519.h"
#include "error.h"
#include "signed_text.h"
#include "strict.h"

namespace cat2dog {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostBytes = 1 << 14;
constexpr std::size_t kMostKeys = 100;
constexpr char const* kExpected = "; expected what `cat2dog sign --new-key` wrote";

// The files that a key's path names, as runtime/signing.py finds them: by name.
std::vector<std::string> key_files(std::string const& path) {
    std::error_code error;
    if (!fs::is_directory(path, error)) return {path};
    std::vector<std::string> names;
    for (fs::directory_iterator each(path, error), end; !error && each != end; each.increment(error)) {
        if (std::string const name = each->path().filename().string(); ends_with(name, ".pub")) names.push_back(name);
    }
    if (error) throw bad_input("cannot read the folder of public keys " + path + ": " + error.message());
    std::sort(names.begin(), names.end());
    if (names.size() > kMostKeys)
        throw bad_input(path + " has " + std::to_string(names.size()) + " public keys, more than " +
                        std::to_string(kMostKeys) + ": keep those you trust");
    for (std::string& name : names) name = (fs::path(path) / name).string();
    return names;
}

std::map<std::string, PublicKey> public_keys(std::string const& path) {
    std::map<std::string, PublicKey> found;
    // An unset variable in a script is no leave to load anything.
    if (path.empty()) throw bad_input("the path of the public keys is empty; " + std::string(kSignedByVariable) + " names a PEM file, or a folder of *.pub");
    for (std::string const& file : key_files(path)) {
        Bytes pem;
        try {
            pem = read_file(file, kMostBytes);
        } catch (Error const& error) {
            throw bad_input("cannot read the public key: " + std::string(error.what()));
        }
        try {
            PublicKey const key = PublicKey::of_pem(pem);
            found.emplace(key.name(), key);
        } catch (std::invalid_argument const& error) {
            throw bad_input(file + " " + error.what() + kExpected);
        }
    }
    if (found.empty()) {
        throw bad_input("there is no public key in " + path + "; " + kSignedByVariable + " names a PEM file, or a folder of *.pub");
    }
    return found;
}

int value_of(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    if (c == '+') return 62;
    return c == '/' ? 63 : -1;
}

// Base64 (RFC 4648) of 64 bytes: 86 digits and two signs that end it. Bits that stand for nothing are zero.
Bytes signature_of(std::string const& text) {
    constexpr std::size_t kDigits = (kSignatureBytes * 8 + 5) / 6;
    if (text.size() != kDigits + 2 || !ends_with(text, "==")) throw std::invalid_argument("its signature is not base64 of 64 bytes");
    Bytes made;
    unsigned bits = 0;
    int held = 0;
    for (std::size_t i = 0; i < kDigits; ++i) {
        int const value = value_of(text[i]);
        if (value < 0) throw std::invalid_argument("its signature is not base64");
        bits = (bits << 6 | static_cast<unsigned>(value)) & 0xFFFF;
        held += 6;
        if (held < 8) continue;
        held -= 8;
        made.push_back(static_cast<std::uint8_t>(bits >> held & 0xFF));
    }
    if ((bits & ((1U << held) - 1)) != 0) throw std::invalid_argument("its signature is not base64 as it is written");
    return made;
}

std::pair<std::string, Bytes> signature_beside(std::string const& engine, std::string const& path, std::string const& keys) {
    std::error_code error;
    if (fs::status(path, error).type() == fs::file_type::not_found) {
        throw foreign("engine " + engine + " is not signed, and only engines signed by " + keys + " are loaded");
    }
    std::string why;
    try {
        Bytes const data = read_file(path, kMostBytes);
        return read_signature({reinterpret_cast<char const*>(data.data()), data.size()});
    } catch (Error const& refused) {
        why = refused.what();
    } catch (std::invalid_argument const& refused) {
        why = refused.what();
    }
    throw foreign("signature " + path + " is damaged (" + why + "); sign the engine again");
}

std::string signed_text_of(std::string const& engine, Json const& manifest) {
    try {
        return signed_text(manifest);
    } catch (std::invalid_argument const& error) {
        throw foreign("manifest of " + engine + " is damaged: " + error.what() + "; build it again");
    }
}

}  // namespace

std::pair<std::string, Bytes> read_signature(std::string_view data) {
    using namespace strict;
    Json const content = object({{"algorithm", one_of({"ed25519"})}, {"key", hash}, {"signature", text}})(Json::parse(data), "it");
    return {content.at("key").as_text(), signature_of(content.at("signature").as_text())};
}

void check_policy(std::string const& engine, Json const& manifest, std::optional<std::string> const& keys) {
    if (!keys) return;
    if (!signatures_by()) {
        throw bad_input("engine " + engine + ": only engines signed by " + *keys + " are to be loaded, but this runner was "
                        "built without OpenSSL and cannot check signatures: install libssl-dev and build it again");
    }
    std::map<std::string, PublicKey> const known = public_keys(*keys);
    std::string const path = fs::path(engine).replace_extension(".sig").string();
    auto const [name, signature] = signature_beside(engine, path, *keys);
    auto const key = known.find(name);
    if (key == known.end()) throw foreign("engine " + engine + " is signed by key " + name.substr(0, 16) + ", which is not in " + *keys);
    if (!key->second.signed_this(signed_text_of(engine, manifest), signature)) {
        throw foreign("signature " + path + " is not of this engine: it was altered, or built again");
    }
}

}  // namespace cat2dog
