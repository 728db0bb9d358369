"""Which NVIDIA GPUs this machine has, asked of the driver without making a context on any of them."""

from __future__ import annotations

import functools
import os
import subprocess
from dataclasses import dataclass
from typing import Any

from runtime.errors import ToolchainError


@dataclass(frozen=True)
class Gpu:
    """One visible GPU. `compute_capability` as in "9.0"; `driver` is the newest CUDA version the driver supports."""

    index: int
    name: str
    compute_capability: str
    memory_bytes: int
    driver: str


def load_modules_lazily() -> None:
    """Let CUDA load a kernel when it is first launched instead of all of a library's at the start; before CUDA starts.

    A choice of the user's stays. Drivers since CUDA 12.2 do so by themselves on Linux.
    """
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")


class _NoGpu(Exception):
    """Why no GPU can be seen; the message ends a sentence."""


def find_gpus() -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves visible; empty where there are none (`no_gpu_reason` says why)."""
    return list(_find()[0])


def no_gpu_reason() -> str:
    """Why `find_gpus` is empty, in one line; "" when it is not."""
    return _find()[1]


def multiprocessors(index: int) -> int:
    """How many multiprocessors a GPU has. Raises ToolchainError where it cannot be asked."""
    try:
        driver = _driver()
        device = _call(driver.cuDeviceGet(index))
        attribute = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
        return int(_call(driver.cuDeviceGetAttribute(attribute, device)))
    except _NoGpu as error:
        raise ToolchainError(f"GPU {index} cannot be asked: {error}") from error


def driver_version() -> str:
    """The driver's own version ("580.159.04"), or the CUDA version it supports where nvidia-smi is not there."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return asked.stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        gpus = find_gpus()
        return f"CUDA {gpus[0].driver}" if gpus else "none"


@functools.cache
def _find() -> tuple[tuple[Gpu, ...], str]:
    # Cached: the driver itself reads the visible devices once per process.
    load_modules_lazily()
    try:
        driver = _driver()
        try:
            started = driver.cuInit(0)
        except RuntimeError as error:  # cuda-bindings looks for libcuda at the first call
            raise _NoGpu("no NVIDIA driver is installed (libcuda is not found)") from error
        _call(started)
        count = _call(driver.cuDeviceGetCount())
        if count == 0:
            raise _NoGpu("the NVIDIA driver sees no GPU (or CUDA_VISIBLE_DEVICES hides it)")
        version = _call(driver.cuDriverGetVersion())
        cuda = f"{version // 1000}.{version % 1000 // 10}"
        return tuple(_gpu(driver, index, cuda) for index in range(count)), ""
    except _NoGpu as error:
        return (), str(error)


def _driver() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError:
        try:
            from cuda import cuda as driver  # before cuda-bindings 12.6.1
        except ImportError as error:
            raise _NoGpu("the package 'cuda-bindings' is not installed: pip install cuda-bindings") from error
    return driver


def _gpu(driver: Any, index: int, cuda: str) -> Gpu:
    device = _call(driver.cuDeviceGet(index))
    attribute = driver.CUdevice_attribute
    major = _call(driver.cuDeviceGetAttribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device))
    minor = _call(driver.cuDeviceGetAttribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device))
    name = _call(driver.cuDeviceGetName(128, device)).split(b"\0")[0].decode(errors="replace").strip()
    memory = _call(driver.cuDeviceTotalMem(device))
    return Gpu(index, name, f"{major}.{minor}", int(memory), cuda)


def _call(result: tuple[Any, ...]) -> Any:
    status, *values = result
    if int(status) != 0:
        if status.name == "CUDA_ERROR_NO_DEVICE":
            raise _NoGpu("the NVIDIA driver sees no GPU (or CUDA_VISIBLE_DEVICES hides it)")
        raise _NoGpu(f"the NVIDIA driver answers {status.name}")
    return values[0] if values else None
