"""Every parser of ours as a function of bytes, to be fuzzed under coverage and tried again with what that found."""
