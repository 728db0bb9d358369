// Counts what is taken from the heap by anybody in this process, the plugin library included.
#pragma once

namespace host {

void count_allocations(bool count);  // of this thread, from now on
int take_allocations();              // those of all threads since the last call; always 0 under a sanitizer

}  // namespace host
