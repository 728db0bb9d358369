"""Every error a user can meet, with the exit code the command line gives it.

    ToolchainError            1  the work failed (a full disk, a builder error)
    ├── InputError            2  wrong usage or bad input: the user can mend what was given
    │   └── MissingExtra      2  a package is not installed; names the pip command
    ├── AccuracyError         3  the accuracy gate refused
    ├── EngineMismatch        4  the engine does not belong to this machine, or was altered
    ├── Busy                  1  nothing is wrong, but there is no room now
    └── GpuLost               1  this process can use the GPU no more: start it anew

The message is one line: what was given, what was expected, what to do.
"""

from __future__ import annotations


class ToolchainError(Exception):
    """Base of all expected failures; `exit_code` is what the command line exits with."""

    exit_code = 1


class InputError(ToolchainError):
    """Wrong usage or bad input."""

    exit_code = 2


class MissingExtra(InputError):
    """An optional package is needed and absent."""

    def __init__(self, package: str, needed_for: str, pip: str):
        super().__init__(f"{needed_for} needs the package '{package}', which is not installed: pip install {pip}")


class AccuracyError(ToolchainError):
    """The output is further from the reference than the gate allows."""

    exit_code = 3


class EngineMismatch(ToolchainError):
    """An engine was built for another machine or TensorRT version, or its file is not what was built."""

    exit_code = 4


class Busy(ToolchainError):
    """A bounded resource (context pool, lock) stayed taken for longer than the caller wanted to wait."""


class GpuLost(ToolchainError):
    """A CUDA error after which every further call of this process on the GPU fails, whatever is called."""
