"""Finds the headers that the plugin library is compiled against: TensorRT's (in no wheel of NVIDIA's) and CUDA's.

Needs the standard library only.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import InputError

REPOSITORY = "https://github.com/NVIDIA/TensorRT"
OLDEST_CUDA = (12, 0)
_TENSORRT_PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11")
_ASK_VERSION = f"""
import importlib.metadata
for package in {_TENSORRT_PACKAGES!r}:
    try:
        print(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        pass
"""
_SYSTEM = ("/usr/include", "/usr/include/x86_64-linux-gnu", "/usr/include/aarch64-linux-gnu", "/usr/local/include")
_SYSTEM_TENSORRT = (*_SYSTEM, "/usr/local/tensorrt/include", "/usr/src/tensorrt/include")
_SYSTEM_CUDA = ("/usr/local/cuda/include", *_SYSTEM)


@dataclass(frozen=True)
class Headers:
    """Include folders, the release they are of ("10.14.1"), and in words where they were found."""

    folders: tuple[Path, ...]
    version: str
    source: str

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])


def find_tensorrt_headers(given: Sequence[str | os.PathLike[str]] = ()) -> list[Headers]:
    """Every folder of `given`, or else the first of: `$TENSORRT_HOME/include`, the system's include folders.

    Raises InputError, which says what to do, where there are none.
    """
    if given:
        found = []
        for folder in given:
            headers = _tensorrt_in([folder, Path(folder) / "include"], "--headers")
            if headers is None:
                raise InputError(f"--headers {folder}: no NvInferRuntime.h and NvInferVersion.h in it")
            found.append(headers)
        return found
    home = os.environ.get("TENSORRT_HOME")
    if home:
        headers = _tensorrt_in([Path(home) / "include"], "TENSORRT_HOME")
        if headers is None:
            raise InputError(f"TENSORRT_HOME={home}: no NvInferRuntime.h and NvInferVersion.h in {home}/include")
        return [headers]
    headers = _tensorrt_in([*_environment_folders(), *_SYSTEM_TENSORRT], "system")
    if headers is None:
        raise InputError(f"there are no TensorRT headers here, and NVIDIA's pip packages have none: {header_advice()}")
    return [headers]


def header_advice() -> str:
    """What to do for headers, fitting the TensorRT that is installed where one is."""
    version = installed_tensorrt()
    tag = release_tag(version) if version else "v10.14"
    here = f" (tensorrt {version} is installed here)" if version else ""
    return (
        f"take them from NVIDIA's open repository: `git clone --depth 1 --branch {tag} {REPOSITORY}`{here}, then "
        f"`make plugin HEADERS=TensorRT/include`; or let TENSORRT_HOME name an unpacked TensorRT"
    )


def installed_tensorrt() -> str | None:
    """Version of the tensorrt package in this Python, or in the one that CAT2DOG_PYTHON_TENSORRT names; else None."""
    other = os.environ.get("CAT2DOG_PYTHON_TENSORRT")
    if other and other != sys.executable:
        try:
            child = subprocess.run([other, "-c", _ASK_VERSION], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return next(iter(child.stdout.split()), None)
    for package in _TENSORRT_PACKAGES:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def release_tag(version: str) -> str:
    """The tag of NVIDIA's repository whose headers fit: plugins need the same major version, the nearest is best.

    Its tags have two forms: v8.6.1, v10.0.0 to v10.13.3 but v10.11, then v10.14, v11.0.
    """
    numbers = [int(part) for part in re.findall(r"\d+", version)[:3]]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    short = (major, minor) >= (10, 14) or (major, minor) == (10, 11)
    return f"v{major}.{minor}" if short else f"v{major}.{minor}.{patch}"


def find_cuda_headers(given: str | os.PathLike[str] | None = None) -> Headers:
    """The first that is new enough of: `given`, CUDA_HOME or CUDA_PATH, nvcc's folder, the system's, pip's wheels.

    Raises InputError, which says what to do, where there are none.
    """
    if given:
        headers = _cuda_in(Path(given), "--cuda") or _cuda_in(Path(given) / "include", "--cuda")
        if headers is None:
            raise InputError(f"--cuda {given}: no cuda.h, cuda_runtime_api.h and crt/ of CUDA 12.0 or newer in it")
        return headers
    for folder, source in _cuda_candidates():
        headers = _cuda_in(folder, source)
        if headers is not None:
            return headers
    raise InputError(
        "there are no CUDA headers (12.0 or newer) here: `pip install nvidia-cuda-runtime nvidia-cuda-crt`, "
        "or let CUDA_HOME name a CUDA toolkit"
    )


def _tensorrt_in(folders: Iterable[str | os.PathLike[str]], source: str) -> Headers | None:
    for folder in map(Path, folders):
        version = _tensorrt_version(folder / "NvInferVersion.h")
        if version and (folder / "NvInferRuntime.h").is_file():
            return Headers((folder.resolve(),), version, source)
    return None


def _tensorrt_version(file: Path) -> str | None:
    try:
        text = file.read_text(errors="replace")
    except OSError:
        return None
    # Older headers define NV_TENSORRT_MAJOR as a number, newer ones through TRT_MAJOR_ENTERPRISE.
    numbers = []
    for part in ("MAJOR", "MINOR", "PATCH"):
        match = re.search(rf"#define (?:NV_TENSORRT_{part}|TRT_{part}_ENTERPRISE) +(\d+)", text)
        if match is None:
            return None
        numbers.append(match[1])
    return ".".join(numbers)


def _cuda_candidates() -> Iterator[tuple[Path, str]]:
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield Path(os.environ[variable]) / "include", variable
    nvcc = _nvcc_folder()
    if nvcc is not None:
        yield nvcc.parent / "include", "nvcc"
    for folder in (*_environment_folders(), *_SYSTEM_CUDA):
        yield Path(folder), "system"
    for site in sys.path:
        for wheel in sorted(Path(site).glob("nvidia/*/include"), reverse=True):
            yield wheel, "pip"


def _environment_folders() -> list[str]:
    return [
        folder
        for variable in ("CPATH", "CPLUS_INCLUDE_PATH")
        for folder in os.environ.get(variable, "").split(os.pathsep)
        if folder
    ]


def _nvcc_folder() -> Path | None:
    """Where nvcc really is: a symbolic link or a wrapper script may stand before it."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return None
    try:
        child = subprocess.run(
            [nvcc, "--dryrun", "-E", "-x", "cu", os.devnull], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"_HERE_=(.+)", child.stderr)
    return Path(match[1].strip()) if match else Path(nvcc).resolve().parent


def _cuda_in(folder: Path, source: str) -> Headers | None:
    if not (folder / "cuda_runtime_api.h").is_file():
        return None
    try:
        match = re.search(r"#define CUDA_VERSION +(\d+)", (folder / "cuda.h").read_text(errors="replace"))
    except OSError:
        return None
    if match is None:
        return None
    version = (int(match[1]) // 1000, int(match[1]) % 1000 // 10)
    if version < OLDEST_CUDA:
        return None
    # CUDA 12's wheels keep crt/ apart from the rest, in the wheel of the compiler.
    crt = [folder, *sorted(folder.parent.parent.glob("*/include"))] if source == "pip" else [folder]
    for beside in crt:
        if (beside / "crt" / "host_defines.h").is_file():
            folders = tuple(dict.fromkeys((folder.resolve(), beside.resolve())))
            return Headers(folders, f"{version[0]}.{version[1]}", source)
    return None
