"""`cat2dog doctor`: what builds and what runs on this machine."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cli import console, options
from runtime.flavors import TENSORRT

HELP = "say what builds and what runs on this machine, and what is missing for the rest"
EXAMPLE = "cat2dog doctor --json"

PACKAGES = (
    "torch",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "numpy",
    "pillow",
    "cuda-bindings",
    "tensorrt",
    "tensorrt-rtx-cu13-bindings",
    "onnxruntime-ep-nv-tensorrt-rtx-cu13",
    "triton",
    "nvidia-cuda-nvrtc",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's options."""
    options.build_folder(parser)
    options.json_output(parser)


def run(args: argparse.Namespace) -> int:
    """Look and tell; 0 whatever is found, since nothing here is wrong by itself."""
    facts = examine(args.build_dir)
    if args.json:
        console.print_json(facts)
        return 0
    machine = facts["machine"]
    print(
        f"{machine['system']}, Python {machine['python']}, {machine['cores']} cores, "
        f"{machine['disk_free_gb']} GB free here"
    )
    gpus = [
        (gpu["name"], gpu["compute_capability"], gpu["memory_bytes"] / 2**30, gpu["driver"]) for gpu in facts["gpus"]
    ]
    if gpus:
        console.table("GPUs", ("name", "compute capability", "GiB", "CUDA of driver"), gpus)
    else:
        print(f"no GPU: {facts['no_gpu_reason']}")
    rows = [(step["what"], "yes" if step["works"] else "no", step["how"]) for step in facts["steps"]]
    console.table("on this machine", ("what", "works", "with, or what is missing"), rows)
    console.table("packages", ("package", "version"), list(facts["packages"].items()))
    print(f"{facts['engines']} engines filed under {args.build_dir / 'engines'}")
    return 0


def examine(build_folder: Path) -> dict[str, Any]:
    """Machine, GPUs, flavors, packages and which steps work here."""
    from engines.store import list_engines
    from runtime.flavors import find_flavors
    from runtime.gpu import find_gpus, no_gpu_reason

    packages = {package: _version(package) for package in PACKAGES}
    flavors = find_flavors()
    disk = shutil.disk_usage(next(path for path in (build_folder, *build_folder.absolute().parents) if path.exists()))
    return {
        "machine": {
            "system": platform.platform(),
            "python": sys.version.split()[0],
            "cores": os.cpu_count(),
            "disk_free_gb": round(disk.free / 1e9, 1),
        },
        "gpus": [vars(gpu) for gpu in find_gpus()],
        "no_gpu_reason": no_gpu_reason(),
        "flavors": [vars(flavor) for flavor in flavors],
        "packages": packages,
        "steps": _steps(packages, flavors),
        "engines": len(list_engines(build_folder / "engines")),
    }


def _steps(packages: dict[str, str | None], flavors: list[Any]) -> list[dict[str, Any]]:
    torch, onnxruntime = packages["torch"], packages["onnxruntime"]
    steps = [
        (
            "init, convert, export, FP32 reference",
            bool(torch),
            f"PyTorch {torch}" if torch else "pip install 'cat2dog[torch]'",
        ),
        (
            "run in ONNX Runtime",
            bool(onnxruntime),
            f"ONNX Runtime {onnxruntime}, CPU" if onnxruntime else "pip install onnxruntime",
        ),
    ]
    from runtime.codecs import in_use

    steps.append(("read and write pictures", True, ", ".join(f"{kind} by {name}" for kind, name in in_use().items())))
    for flavor in flavors:
        known = f"{flavor.name} {flavor.version} in {flavor.python}" if flavor.version else flavor.reason
        ahead = "" if flavor.can_run or not flavor.can_build else ", ahead of time"
        steps.append(
            (f"build with {flavor.name}", flavor.can_build, known + ahead if flavor.can_build else flavor.reason)
        )
        steps.append((f"run with {flavor.name}", flavor.can_run, known if flavor.can_run else flavor.reason))
    steps += [_kernels(), *(_plugin(flavor) for flavor in flavors if flavor.name == TENSORRT)]
    return [{"what": what, "works": works, "how": how} for what, works, how in steps]


def _kernels() -> tuple[str, bool, str]:
    from engines.kernels.images import compiler_versions, why_not

    reason = why_not()
    compilers = ", ".join(f"{name} {number}" for name, number in compiler_versions().items())
    return "compile fused attention kernels", not reason, reason or compilers


def _plugin(flavor: Any) -> tuple[str, bool, str]:
    """Fused attention in an engine takes kernels for the GPU, and the library that launches them."""
    from engines.kernels.library import available
    from runtime.errors import InputError
    from runtime.gpu import find_gpus
    from runtime.plugins import find_plugin

    what = f"fused attention in {flavor.name} engines"
    if not flavor.version:
        return what, False, flavor.reason
    try:
        library = str(find_plugin(flavor.version))
    except InputError as error:
        return what, False, str(error)
    reasons = [reason for gpu in find_gpus()[:1] if (reason := available(gpu.compute_capability))]
    return what, flavor.can_run and not reasons, "; ".join(reasons) or (library if flavor.can_run else flavor.reason)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
