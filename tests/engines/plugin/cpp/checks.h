#pragma once

namespace host {

// Runs every check against the fake driver; prints one line each, and returns how many failed. `library_path` is the
// plugin library, loaded already as `library`.
int run_checks(char const* library_path, void* fake_driver, bool old_driver);

// Compares a plan's outputs with expected ones on a GPU; see main.cpp for the arguments. Returns the exit code.
int run_gpu(int count, char** arguments);

}  // namespace host
