"""What an exported file depends on, in plain words. Needs no torch, so that an up-to-date file is found at once."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from export.policy import Policy
from export.recipe import Recipe

_WRITERS = ("torch", "onnx", "onnx-ir", "onnxscript")


def export_key(recipe: Recipe, policy: Policy, opset: int, batch: int | None) -> dict[str, Any]:
    """Recipe, precision and islands, opset, batch, and the versions and code that write the graph."""
    return {
        "recipe": recipe.identity(),
        "inputs": [str(spec) for spec in recipe.inputs],
        "outputs": [str(spec) for spec in recipe.outputs],
        "precision": policy.precision,
        "islands": policy.describe(),
        "opset": opset,
        "batch": "dynamic" if batch is None else batch,
        "versions": versions(),
        "export_code_sha256": code_sha256(Path(__file__).parent),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that write the graph."""
    found = {}
    for package in _WRITERS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@cache
def code_sha256(folder: Path) -> str:
    """Content hash of the Python files of a room: a changed exporter makes old exports stale."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
