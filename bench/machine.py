"""What a measurement must say of the machine that made it."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime import gpu


def machine(packages: Sequence[str] = (), command: str | None = None) -> dict[str, Any]:
    """GPU, driver, CPU, Python, versions of `packages` (those that are installed), date and command."""
    gpus = gpu.find_gpus()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "gpu": gpus[0].name if gpus else None,
        "driver": gpu.driver_version(),
        "cuda": gpus[0].driver if gpus else None,
        "cpu": cpu_name(),
        "cores": cores(),
        "python": platform.python_version(),
        "versions": versions(packages),
        "command": command or command_line(f"python -m {_module()}", sys.argv[1:]),
    }


def command_line(program: str, words: Sequence[str]) -> str:
    """The command as it was typed, but for paths of this machine: relative in this folder, else the name alone."""
    return " ".join([program, *(shlex.quote(_portable(word)) for word in words)])


def _portable(word: str) -> str:
    path = Path(word)
    if not path.is_absolute():
        return word
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The versions of those `packages` that this Python has."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """The CPU's own name where Linux tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()


def _module() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec else sys.argv[0]
