"""Builds the plugin library with CMake: `python -m engines.plugin.build`, or `make plugin`.

Needs Python 3.10 and its standard library, CMake 3.16, and a C++17 compiler. Prints what it found and what it built.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from engines.plugin.headers import Headers, find_cuda_headers, find_tensorrt_headers, installed_tensorrt
from runtime.errors import InputError, ToolchainError

SOURCE = Path(__file__).resolve().parent
OUTPUT = SOURCE.parent.parent / "build" / "plugin"


def build_plugin(
    tensorrt: Headers,
    cuda: Headers,
    output: Path = OUTPUT,
    work: Path | None = None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Compile one library into `output`; `work` is where CMake works, `options` are its cache variables.

    Compiles only what changed. Raises InputError without CMake or compiler, ToolchainError where compiling fails.
    """
    cmake = _find_cmake()
    _check_compiler()
    work = work or output / f"cmake-trt{tensorrt.major}"
    settings = {
        "TENSORRT_INCLUDE": str(tensorrt.folders[0]),
        "CUDA_INCLUDE": ";".join(map(str, cuda.folders)),
        "CAT2DOG_OUTPUT": str(output),
        **options,
    }
    configure = [cmake, "-S", str(SOURCE), "-B", str(work), *(f"-D{name}={value}" for name, value in settings.items())]
    if shutil.which("ninja"):
        configure += ["-G", "Ninja"]
    try:
        _run(configure, "configuring")
    except ToolchainError:
        # A cache of another generator or of a folder that has moved since: begin anew, once.
        if not (work / "CMakeCache.txt").is_file():
            raise
        shutil.rmtree(work)
        _run(configure, "configuring")
    _run([cmake, "--build", str(work), "--parallel", str(min(os.cpu_count() or 1, 8))], "compiling")
    variant = "_v2" if options.get("CAT2DOG_ADAPTER") == "v2" and tensorrt.major >= 10 else ""
    return output / f"libcat2dog_plugin_trt{tensorrt.major}{variant}.so"


def _find_cmake() -> str:
    """CMake on the path, or the one inside the pip package."""
    found = shutil.which("cmake")
    spec = importlib.util.find_spec("cmake") if found is None else None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        inside = Path(folder) / "data" / "bin" / "cmake"
        if inside.is_file():
            found = str(inside)
    if found is None:
        raise InputError("there is no cmake here: `pip install cmake` or `apt-get install cmake`")
    return found


def _check_compiler() -> None:
    names = [os.environ["CXX"].split()[0]] if os.environ.get("CXX", "").split() else ["c++", "g++", "clang++"]
    if not any(map(shutil.which, names)):
        raise InputError(f"there is no C++ compiler here (looked for {', '.join(names)}): `apt-get install g++`")


def _run(command: Sequence[str], doing: str) -> None:
    child = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if child.returncode != 0:
        lines = [line for line in child.stdout.splitlines() if line.strip()]
        raise ToolchainError(
            "\n".join([f"{doing} the plugin library failed; the end of what {command[0]} said:", *lines[-30:]])
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m engines.plugin.build",
        description="Build libcat2dog_plugin_trt<major>.so, which launches the kernels inside an engine.",
        epilog="example: python -m engines.plugin.build --headers TensorRT/include",
    )
    parser.add_argument(
        "--headers",
        action="append",
        default=[],
        metavar="DIR",
        help="folder with NvInferRuntime.h; may be given again, for another TensorRT (default: $TENSORRT_HOME/include, "
        "then the system's)",
    )
    parser.add_argument("--cuda", metavar="DIR", help="folder with cuda.h (default: CUDA_HOME, nvcc's, system, pip)")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR", help="default: build/plugin")
    parser.add_argument("--adapter", choices=("v2", "v3"), help="default: v2 below TensorRT 10, else v3")
    options = parser.parse_args(arguments)
    try:
        found = find_tensorrt_headers(options.headers)
        cuda = find_cuda_headers(options.cuda)
        for tensorrt in found:
            _build_one(tensorrt, cuda, options.output.absolute(), options.adapter)
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _build_one(tensorrt: Headers, cuda: Headers, output: Path, adapter: str | None) -> None:
    print(f"TensorRT headers: {tensorrt.version}, {tensorrt.folders[0]} ({tensorrt.source})")
    print(f"CUDA headers: {cuda.version}, {', '.join(map(str, cuda.folders))} ({cuda.source})", flush=True)
    installed = installed_tensorrt()
    if installed and installed.split(".")[0] != str(tensorrt.major):
        print(f"note: tensorrt {installed} is installed here, which a library for {tensorrt.major} does not fit")
    before = {file: file.stat().st_mtime_ns for file in output.glob("*.so")}
    library = build_plugin(tensorrt, cuda, output, options={"CAT2DOG_ADAPTER": adapter or ""})
    fresh = before.get(library) == library.stat().st_mtime_ns
    print(f"{library}: {'up to date' if fresh else 'built'}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
