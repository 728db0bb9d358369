"""A result of a long run: the machine, how long it took, and counts. `RELIABILITY.md` is made of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.machine import machine
from runtime.files import write_text

FOLDER = Path(__file__).resolve().parent.parent / "bench/results/reliability"
_PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "tensorrt", "tensorrt-rtx-cu13-bindings", "filelock")


class Broken(AssertionError):
    """A promise was not kept; the text says which, and how to see it again."""


def promise(kept: bool, text: str) -> None:
    """Raise Broken unless the promise was kept."""
    if not kept:
        raise Broken(text)


def measured(name: str, work: Callable[[], Mapping[str, Any]], output: Path | None = None) -> dict[str, Any]:
    """Run `work` and file its counts as `{name}.json`; nothing is filed where a promise was broken."""
    began = time.monotonic()
    counts = dict(work())
    result = {**machine((*_PACKAGES, "cryptography")), "seconds": round(time.monotonic() - began, 1), **counts}
    path = output or FOLDER / f"{name}.json"
    write_text(path, json.dumps(result, indent=1) + "\n")
    print(f"{name}: {json.dumps(counts)[:600]}")
    return result
