#include <stdexcept>

#include "ed25519.h"

// A runner without OpenSSL: `check_policy` refuses every engine before any of these is called.
namespace cat2dog {

PublicKey PublicKey::of_pem(Bytes const&) { throw std::logic_error("a runner without OpenSSL reads no keys"); }

std::string PublicKey::name() const { throw std::logic_error("a runner without OpenSSL reads no keys"); }

bool PublicKey::signed_this(std::string const&, Bytes const&) const { return false; }

std::optional<std::string> signatures_by() { return std::nullopt; }

}  // namespace cat2dog
