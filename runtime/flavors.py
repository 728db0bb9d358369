"""Which TensorRT flavors are here, and their Python API.

A flavor may live in another Python (TensorRT 8.6 has wheels for 3.10 only): the environment variable
CAT2DOG_PYTHON_TENSORRT or CAT2DOG_PYTHON_TENSORRT_RTX names it. `python -m runtime.flavors --json` prints what is here.
This file needs nothing but the standard library, so that it runs in any such Python.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

from runtime import gpu
from runtime.errors import InputError, ToolchainError

TENSORRT = "tensorrt"
TENSORRT_RTX = "tensorrt_rtx"
FLAVORS = (TENSORRT, TENSORRT_RTX)

_PIP = {
    TENSORRT: "pip install tensorrt --extra-index-url https://pypi.nvidia.com",
    TENSORRT_RTX: "pip install onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0 tensorrt-rtx-cu13-bindings==1.7.1.116",
}
_MODULES = {TENSORRT: ("tensorrt",), TENSORRT_RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}
# The parser resolves its symbols from the first library without naming it, hence the order and RTLD_GLOBAL.
_RTX_LIBRARIES = ("libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so")
_RTX_LIBRARY_PACKAGES = ("onnxruntime_ep_nv_tensorrt_rtx", "tensorrt_rtx_libs")
# What TensorRT-RTX 1.x names in its own ComputeCapability; 9.0 and 10.0 are not among them.
_RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
_PROBE_SECONDS = 60


@dataclass(frozen=True)
class Flavor:
    """One flavor in one Python. `version` is None where it cannot be used; `reason` says what is in the way, or is "".

    `can_run` is about the GPUs seen now; TensorRT-RTX builds without one.
    """

    name: str
    version: str | None
    python: str
    can_build: bool
    can_run: bool
    reason: str = ""


def find_flavors() -> list[Flavor]:
    """Each flavor as found in this Python, or in the one its environment variable names; usable or with a reason.

    Each is tried in a child process: two flavors' libraries must not meet in one process, and a crash in one of
    them must not end this one.
    """
    return [_probe(name, os.environ.get(python_variable(name)) or sys.executable) for name in FLAVORS]


def find_flavor(name: str) -> Flavor:
    """One flavor as `find_flavors` gives it. Raises InputError for an unknown name."""
    _check_name(name)
    return _probe(name, os.environ.get(python_variable(name)) or sys.executable)


def python_variable(name: str) -> str:
    """The environment variable that names another Python for this flavor."""
    return f"CAT2DOG_PYTHON_{name.upper()}"


def load_flavor(name: str) -> ModuleType:
    """Import a flavor's Python API in this process, with its libraries.

    Raises InputError with the reason where it cannot be imported; ToolchainError where the other flavor is already
    in this process, since both define the same symbols.
    """
    _check_name(name)
    other = next((loaded for loaded in FLAVORS if loaded != name and _is_loaded(loaded)), None)
    if other:
        raise ToolchainError(f"{name} cannot be loaded beside {other} in one process; use another process")
    try:
        return _import_rtx() if name == TENSORRT_RTX else importlib.import_module(TENSORRT)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name} cannot be used: {reason}; install it whole: {_PIP[name]}") from error


def supports(name: str, version: str, compute_capability: str) -> bool:
    """Whether this flavor and version runs on a GPU of that compute capability ("8.6").

    TensorRT by its support matrices: 8.6 from 5.0 to 9.0; 10.0 from 7.0, 10.5 from 7.5; Blackwell (10.0 and more) from
    10.8 on.
    """
    if name == TENSORRT_RTX:
        return compute_capability in _RTX_CAPABILITIES
    capability = _numbers(compute_capability)
    release = _numbers(version)
    least = (5, 0) if release < (10,) else (7, 0) if release < (10, 5) else (7, 5)
    return least <= capability and (capability <= (9, 0) or release >= (10, 8))


def _check_name(name: str) -> None:
    if name not in FLAVORS:
        raise InputError(f"there is no flavor '{name}'; expected one of {', '.join(FLAVORS)}")


def _is_loaded(name: str) -> bool:
    return any(module in sys.modules for module in _MODULES[name])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _import_rtx() -> ModuleType:
    if importlib.util.find_spec("tensorrt_rtx") is not None:
        return importlib.import_module("tensorrt_rtx")
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        raise ImportError("no package 'tensorrt_rtx' or 'tensorrt_rtx_bindings' is installed")
    if "tensorrt_rtx_bindings" not in sys.modules:
        for library in _rtx_libraries():
            ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
    return importlib.import_module("tensorrt_rtx_bindings")


def _rtx_libraries() -> list[str]:
    """Full paths out of a wheel; else the names the dynamic loader knows (LD_LIBRARY_PATH, ldconfig)."""
    for package in _RTX_LIBRARY_PACKAGES:
        spec = importlib.util.find_spec(package)  # finds a top-level package without running it
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            found = [sorted(Path(folder).glob(f"{name}*")) for name in _RTX_LIBRARIES]
            if all(found):
                return [str(candidates[-1]) for candidates in found]
    return [f"{name}.1" for name in _RTX_LIBRARIES]


def _probe(name: str, python: str) -> Flavor:
    """Ask a Python what it has. Only this package comes from here: its other packages are its own."""
    root = str(Path(__file__).resolve().parent.parent)
    program = (
        f"import sys; sys.path.insert(0, {root!r}); import runtime.flavors as flavors; "
        f"sys.path.remove({root!r}); flavors.print_here([{name!r}])"
    )
    try:
        child = subprocess.run(
            [python, "-c", program], cwd="/", capture_output=True, text=True, errors="replace", timeout=_PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return _unusable(name, python, f"{python} did not answer within {_PROBE_SECONDS} s")
    except (OSError, ValueError) as error:
        source = f"{python_variable(name)} names " if os.environ.get(python_variable(name)) else ""
        return _unusable(name, python, f"{source}{python}, which cannot be started: {error}")
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1][:300]
        return _unusable(name, python, f"trying {name} in {python} ended with {child.returncode}: {last}")
    return _parse(name, python, child.stdout)


def _parse(name: str, python: str, text: str) -> Flavor:
    try:
        (entry,) = json.loads(text.strip().splitlines()[-1])  # libraries may print before it
        flavor = Flavor(**{**entry, "python": python})
    except (ValueError, IndexError, TypeError, RecursionError):
        return _unusable(name, python, f"{python} answered something else than a flavor")
    well_typed = (
        isinstance(flavor.version, (str, type(None)))
        and isinstance(flavor.can_build, bool)
        and isinstance(flavor.can_run, bool)
        and isinstance(flavor.reason, str)
    )
    if flavor.name != name or not well_typed:
        return _unusable(name, python, f"{python} answered something else than a flavor")
    return flavor


def _unusable(name: str, python: str, reason: str) -> Flavor:
    return Flavor(name, None, python, can_build=False, can_run=False, reason=reason)


def here(name: str) -> Flavor:
    """The flavor in this very process (loads it)."""
    _check_name(name)
    if all(importlib.util.find_spec(module) is None for module in _MODULES[name]):
        return _unusable(name, sys.executable, f"{name} is not installed: {_PIP[name]}")
    try:
        version = str(load_flavor(name).__version__)
    except ToolchainError as error:
        return _unusable(name, sys.executable, str(error))
    gpus = gpu.find_gpus()
    fitting = [each for each in gpus if supports(name, version, each.compute_capability)]
    if fitting:
        reason = ""
    elif gpus:
        reason = f"{name} {version} does not run on {gpus[0].name} (compute capability {gpus[0].compute_capability})"
    else:
        reason = gpu.no_gpu_reason()
    # Only TensorRT-RTX builds for GPUs that are absent; TensorRT times its kernels on the one it builds for.
    return Flavor(name, version, sys.executable, name == TENSORRT_RTX or bool(fitting), bool(fitting), reason)


def print_here(names: Sequence[str]) -> None:
    """Print these flavors of this process as one line of JSON, the last of what is printed."""
    print(json.dumps([asdict(here(name)) for name in names]), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m runtime.flavors [--json]`: what `find_flavors` gives, for people or machines."""
    parser = argparse.ArgumentParser(prog="python -m runtime.flavors", description="Which TensorRT flavors are here.")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    as_json = parser.parse_args(arguments).json
    flavors = find_flavors()
    if as_json:
        print(json.dumps([asdict(flavor) for flavor in flavors]))
        return
    for flavor in flavors:
        does = [verb for verb, can in (("builds", flavor.can_build), ("runs", flavor.can_run)) if can]
        facts = [flavor.version or "absent", " and ".join(does), flavor.reason]
        print(f"{flavor.name}: {'; '.join(fact for fact in facts if fact)}")


if __name__ == "__main__":
    main()
