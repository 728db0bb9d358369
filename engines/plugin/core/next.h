// What the node enqueued after another one expects in the L2: weights, which the kernel before may ask for in time.
//
// TensorRT tells a plugin nothing of its neighbours. But it enqueues the nodes of a network in one order, in one thread
// and mostly on one stream, again and again with the same weights: so a node that expects something tells it to the one
// that was enqueued before it in the same thread, on the same stream. That one passes it to its kernels from its next
// call on; in a CUDA graph, if a call went before the capture.
//
// A plan asks only where a node that expects something must follow in its own network (engines/fused_linear_last.py), so
// that what it is told lives as long as it does.
#pragma once

#include <cuda.h>

#include <atomic>
#include <cstdint>
#include <memory>

namespace cat2dog {

struct Expected {
    void const* address = nullptr;
    std::uint64_t bytes = 0;
};

// What a node knows of the one behind it. A copy knows nothing yet: its context may have other weights.
class Follower {
public:
    // Not here: what the standard library makes for them would be exported.
    Follower();
    Follower(Follower const&);
    ~Follower();
    Follower& operator=(Follower const&) = delete;

    // What it was told last; null until then.
    Expected expected() const noexcept;
    void forget() noexcept;
    // Whoever is enqueued next in this thread, on this stream, tells this one what it expects. Takes no memory.
    void listen(CUstream stream) const noexcept;

private:
    friend void tell_last(Expected const& expected, CUstream stream) noexcept;
    friend void silence() noexcept;
    struct Told {
        std::atomic<void const*> address{nullptr};
        std::atomic<std::uint64_t> bytes{0};
    };
    static std::shared_ptr<Told>& listener() noexcept;
    std::shared_ptr<Told> told_;
};

// Tells the node that listens in this thread, if it listens on this stream; it hears nobody after that.
void tell_last(Expected const& expected, CUstream stream) noexcept;

// Nobody listens in this thread any more: a call went wrong, and what comes next may be of another network.
void silence() noexcept;

}  // namespace cat2dog
