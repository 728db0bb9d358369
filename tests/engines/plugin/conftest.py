"""Builds the plugin library and its C++ tests once a session: V3 as it ships, and V2 under AddressSanitizer.

TensorRT's headers come from the wheel `kernel-lens`, whose set is that of 10.14 and still has the V2 classes; CUDA's
from a toolkit, else from NVIDIA's wheels. Both are unpacked under build/, never installed and never committed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from engines.plugin.build import build_plugin
from engines.plugin.headers import Headers, find_cuda_headers, find_tensorrt_headers
from runtime.errors import InputError, ToolchainError

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / "build" / "test-plugin"
TENSORRT_WHEELS = ("kernel-lens==2.0.1",)
CUDA_WHEELS = ("nvidia-cuda-runtime==13.5.37", "nvidia-cuda-crt==13.5.37")


@dataclass(frozen=True)
class Built:
    """One build: the library, and the programs beside it."""

    library: Path
    programs: Path
    sanitized: bool

    @property
    def host_test(self) -> str:
        return str(self.programs / "host_test")

    @property
    def plan_tool(self) -> str:
        return str(self.programs / "plan_tool")


def unpack_wheels(requirements: tuple[str, ...], folder: Path) -> Path:
    """Download wheels with pip and unpack them. Skips the test, with pip's last words, where pip cannot."""
    ready = folder / ".ready"
    if ready.is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    child = subprocess.run(
        [*command, "--dest", str(folder), *requirements], capture_output=True, text=True, timeout=120
    )
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"needs headers, and pip cannot download {' '.join(requirements)}: {last}")
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    ready.touch()
    return folder


def _tensorrt_headers() -> Headers:
    try:
        return find_tensorrt_headers(
            [unpack_wheels(TENSORRT_WHEELS, CACHE / "tensorrt") / "kernel_lens/include/tensorrt"]
        )[0]
    except pytest.skip.Exception:
        try:
            found = find_tensorrt_headers()[0]
        except InputError:
            found = None
        if found is None or found.major < 10:
            raise
        return found


def _cuda_headers() -> Headers:
    try:
        return find_cuda_headers()
    except InputError:
        return find_cuda_headers(unpack_wheels(CUDA_WHEELS, CACHE / "cuda") / "nvidia" / "cu13" / "include")


def _build(name: str, **options: str) -> Built:
    if sys.platform != "linux":
        pytest.skip("the plugin library is for Linux")
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / ".lock"):
        output = CACHE / name
        strict = {"CAT2DOG_TESTS": "ON", "CAT2DOG_STRICT": "ON", **options}
        try:
            library = build_plugin(_tensorrt_headers(), _cuda_headers(), output, output / "cmake", strict)
        except InputError as error:
            pytest.skip(f"cannot compile the plugin library: {error}")
        except ToolchainError as error:
            pytest.fail(str(error))
    return Built(library, output / "cmake" / "cpp", bool(options.get("CAT2DOG_SANITIZE")))


@pytest.fixture(scope="session")
def v3() -> Built:
    """IPluginV3, as `make plugin` builds it."""
    return _build("v3")


@pytest.fixture(scope="session")
def v2() -> Built:
    """IPluginV2DynamicExt, under AddressSanitizer and its leak check."""
    return _build("v2-address", CAT2DOG_ADAPTER="v2", CAT2DOG_SANITIZE="address")


@pytest.fixture(scope="session")
def sanitized_v3() -> Built:
    """IPluginV3 under the sanitizers."""
    return _build("v3-sanitized", CAT2DOG_SANITIZE="address,undefined")


@pytest.fixture(scope="session")
def v2_plain() -> Built:
    """IPluginV2DynamicExt as it ships."""
    return _build("v2", CAT2DOG_ADAPTER="v2")
