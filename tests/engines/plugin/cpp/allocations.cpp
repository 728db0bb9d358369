#include "allocations.h"

#include <atomic>
#include <cstddef>

namespace {

thread_local bool counting = false;
std::atomic<int> allocations{0};

}  // namespace

namespace host {

void count_allocations(bool count) { counting = count; }
int take_allocations() { return allocations.exchange(0); }

}  // namespace host

// Stands before libc's own in the order of lookup; the sanitizers do the same for themselves.
#ifndef HOST_SANITIZED
extern "C" void* __libc_malloc(std::size_t);
extern "C" void* __libc_calloc(std::size_t, std::size_t);
extern "C" void* __libc_realloc(void*, std::size_t);

extern "C" __attribute__((visibility("default"))) void* malloc(std::size_t size) {
    if (counting) ++allocations;
    return __libc_malloc(size);
}
extern "C" __attribute__((visibility("default"))) void* calloc(std::size_t count, std::size_t size) {
    if (counting) ++allocations;
    return __libc_calloc(count, size);
}
extern "C" __attribute__((visibility("default"))) void* realloc(void* old, std::size_t size) {
    if (counting) ++allocations;
    return __libc_realloc(old, size);
}
#endif
