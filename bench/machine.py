"""What a measurement must say of the machine that made it."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import sys
from collections.abc import Sequence
from typing import Any

from runtime import gpu


def machine(packages: Sequence[str] = ()) -> dict[str, Any]:
    """GPU, driver, Python, versions of `packages` (those that are installed), date and command."""
    gpus = gpu.find_gpus()
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "gpu": gpus[0].name if gpus else None,
        "driver": gpu.driver_version(),
        "cuda": gpus[0].driver if gpus else None,
        "python": platform.python_version(),
        "versions": versions,
        "command": " ".join([f"python -m {_module()}", *sys.argv[1:]]),
    }


def _module() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else sys.argv[0]
