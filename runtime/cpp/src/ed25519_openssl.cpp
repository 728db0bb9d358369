#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <array>
#include <stdexcept>

#include "ed25519.h"
#include "sha256.h"

namespace cat2dog {
namespace {

template <typename Handle, void (*kFree)(Handle*)>
struct Freed {
    void operator()(Handle* handle) const { kFree(handle); }
};

void free_bio(BIO* bio) { BIO_free(bio); }

using Bio = std::unique_ptr<BIO, Freed<BIO, free_bio>>;
using Digest = std::unique_ptr<EVP_MD_CTX, Freed<EVP_MD_CTX, EVP_MD_CTX_free>>;

// OpenSSL would ask the terminal for the password of an encrypted file.
int no_password(char*, int, int, void*) { return -1; }

EVP_PKEY* of(std::shared_ptr<void> const& key) { return static_cast<EVP_PKEY*>(key.get()); }

}  // namespace

PublicKey PublicKey::of_pem(Bytes const& pem) {
    Bio const bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
    if (!bio) throw std::bad_alloc();
    PublicKey made;
    EVP_PKEY* const found = PEM_read_bio_PUBKEY(bio.get(), nullptr, no_password, nullptr);
    ERR_clear_error();
    if (found == nullptr) throw std::invalid_argument("is no public key");
    made.key_ = std::shared_ptr<void>(found, [](void* key) { EVP_PKEY_free(static_cast<EVP_PKEY*>(key)); });
    if (EVP_PKEY_id(found) != EVP_PKEY_ED25519) throw std::invalid_argument("is no Ed25519 key");
    return made;
}

std::string PublicKey::name() const {
    std::array<unsigned char, 32> raw{};
    std::size_t size = raw.size();
    if (EVP_PKEY_get_raw_public_key(of(key_), raw.data(), &size) != 1 || size != raw.size()) {
        throw std::runtime_error("OpenSSL could not write a public key's bytes");
    }
    return sha256(raw.data(), raw.size());
}

bool PublicKey::signed_this(std::string const& text, Bytes const& signature) const {
    Digest const digest(EVP_MD_CTX_new());
    if (!digest) throw std::bad_alloc();
    if (EVP_DigestVerifyInit(digest.get(), nullptr, nullptr, nullptr, of(key_)) != 1) {
        throw std::runtime_error("OpenSSL could not start to verify an Ed25519 signature");
    }
    auto const* const data = reinterpret_cast<unsigned char const*>(text.data());
    // Only 1 is a yes: 0 and negative values are other kinds of no.
    bool const sound = signature.size() == kSignatureBytes &&
                       EVP_DigestVerify(digest.get(), signature.data(), signature.size(), data, text.size()) == 1;
    ERR_clear_error();
    return sound;
}

std::optional<std::string> signatures_by() {
    std::string const version = OpenSSL_version(OPENSSL_VERSION);  // "OpenSSL 3.0.19 27 Jan 2026"
    return version.substr(0, version.find(' ', version.find(' ') + 1));
}

// By OpenSSL too, which uses the processor's own instructions for it: an engine has gigabytes.
std::string sha256(std::uint8_t const* data, std::size_t size) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned length = 0;
    if (EVP_Digest(data, size, digest.data(), &length, EVP_sha256(), nullptr) != 1 || length != 32) {
        throw std::runtime_error("OpenSSL could not compute a SHA-256");
    }
    std::string hex;
    for (std::size_t i = 0; i < length; ++i) {
        hex += "0123456789abcdef"[digest[i] >> 4];
        hex += "0123456789abcdef"[digest[i] & 15];
    }
    return hex;
}

}  // namespace cat2dog
