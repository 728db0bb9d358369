// What a user can meet, with the exit code that the Python commands give it too.
#pragma once

#include <stdexcept>
#include <string>

namespace cat2dog {

enum class Exit { kDone = 0, kFailed = 1, kBadInput = 2, kRefusedByGate = 3, kForeignEngine = 4, kInterrupted = 130 };

// One line: what was given, what was expected, what to do.
class Error : public std::runtime_error {
public:
    Error(Exit code, std::string const& what) : std::runtime_error(what), code(code) {}
    Exit code;
};

inline Error bad_input(std::string const& what) { return {Exit::kBadInput, what}; }
inline Error failed(std::string const& what) { return {Exit::kFailed, what}; }
inline Error foreign(std::string const& what) { return {Exit::kForeignEngine, what}; }

}  // namespace cat2dog
