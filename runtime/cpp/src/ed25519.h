// Ed25519 (RFC 8032) by OpenSSL, where the runner was built with it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "files.h"

namespace cat2dog {

constexpr std::size_t kSignatureBytes = 64;

class PublicKey {
public:
    // Of a PEM file's content. Raises std::invalid_argument in a few words where it is no Ed25519 key.
    static PublicKey of_pem(Bytes const& pem);
    // SHA-256 of its 32 bytes, 64 hex digits.
    std::string name() const;
    bool signed_this(std::string const& text, Bytes const& signature) const;

private:
    std::shared_ptr<void> key_;
};

// "OpenSSL 3.0.19"; nothing where the runner was built without it: then no key can be read either.
std::optional<std::string> signatures_by();

}  // namespace cat2dog
