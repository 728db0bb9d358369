"""What a result must say of where it comes from, when a `cat2dog` command writes it."""

from __future__ import annotations

import sys
from typing import Any

_PACKAGES = ("torch", "onnx", "onnxruntime", "polygraphy", "numpy", "tensorrt", "tensorrt-rtx-cu13-bindings")


def provenance() -> dict[str, Any]:
    """Machine, versions, date, and the command as it was typed."""
    from bench.machine import command_line, machine

    return machine(_PACKAGES, command_line("cat2dog", sys.argv[1:]))
