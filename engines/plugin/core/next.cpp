#include "next.h"

namespace cat2dog {
namespace {

thread_local CUstream listens_on = nullptr;

}  // namespace

Follower::Follower() : told_(std::make_shared<Told>()) {}

Follower::Follower(Follower const&) : Follower() {}

Follower::~Follower() = default;

std::shared_ptr<Follower::Told>& Follower::listener() noexcept {
    thread_local std::shared_ptr<Told> one;
    return one;
}

Expected Follower::expected() const noexcept {
    // The length last: it is written first, so that whoever sees the address sees its length, too.
    void const* const address = told_->address.load(std::memory_order_acquire);
    return {address, address == nullptr ? 0 : told_->bytes.load(std::memory_order_relaxed)};
}

void Follower::forget() noexcept { told_->address.store(nullptr, std::memory_order_release); }

void Follower::listen(CUstream stream) const noexcept {
    listener() = told_;
    listens_on = stream;
}

void tell_last(Expected const& expected, CUstream stream) noexcept {
    std::shared_ptr<Follower::Told>& listener = Follower::listener();
    if (listener != nullptr && listens_on == stream) {
        listener->bytes.store(expected.bytes, std::memory_order_relaxed);
        listener->address.store(expected.address, std::memory_order_release);
    }
    silence();
}

void silence() noexcept { Follower::listener().reset(); }

}  // namespace cat2dog
