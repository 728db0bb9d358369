"""What a result must say of where it comes from, when a `cat2dog` command writes it."""

from __future__ import annotations

import shlex
import sys
from typing import Any

_PACKAGES = ("torch", "onnx", "onnxruntime", "polygraphy", "numpy", "tensorrt", "tensorrt-rtx-cu13-bindings")


def provenance() -> dict[str, Any]:
    """Machine, versions, date, and the command as it was typed."""
    from bench.machine import machine

    return {**machine(_PACKAGES), "command": shlex.join(["cat2dog", *sys.argv[1:]])}
