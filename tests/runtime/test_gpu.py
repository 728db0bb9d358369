from __future__ import annotations

import sys
from enum import IntEnum
from types import ModuleType, SimpleNamespace

import pytest

from runtime import gpu
from runtime.gpu import Gpu, find_gpus, no_gpu_reason


class Status(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803


def driver(count=1, init=Status.CUDA_SUCCESS):
    """Answers as cuda-bindings' driver module does: a status first, then the values."""
    good = Status.CUDA_SUCCESS
    attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="major", CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR="minor"
    )
    return SimpleNamespace(
        CUdevice_attribute=attribute,
        cuInit=lambda flags: (init,),
        cuDeviceGetCount=lambda: (good, count),
        cuDriverGetVersion=lambda: (good, 12080),
        cuDeviceGet=lambda index: (good, index),
        cuDeviceGetName=lambda size, device: (good, b"NVIDIA L4" + b"\0" * 100),
        cuDeviceTotalMem=lambda device: (good, 23 << 30),
        cuDeviceGetAttribute=lambda attribute, device: (good, {"major": 8, "minor": 9}[attribute]),
    )


@pytest.fixture
def use(monkeypatch):
    gpu._find.cache_clear()
    yield lambda fake: monkeypatch.setattr(gpu, "_driver", lambda: fake)
    gpu._find.cache_clear()


def test_what_the_driver_says(use):
    use(driver(count=2))
    assert find_gpus() == [Gpu(index, "NVIDIA L4", "8.9", 23 << 30, "12.8") for index in (0, 1)]
    assert no_gpu_reason() == ""


@pytest.mark.parametrize(
    ("fake", "reason"),
    [
        (driver(count=0), "the NVIDIA driver sees no GPU (or CUDA_VISIBLE_DEVICES hides it)"),
        (driver(init=Status.CUDA_ERROR_NO_DEVICE), "the NVIDIA driver sees no GPU (or CUDA_VISIBLE_DEVICES hides it)"),
        (
            driver(init=Status.CUDA_ERROR_SYSTEM_DRIVER_MISMATCH),
            "the NVIDIA driver answers CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        ),
    ],
)
def test_no_gpu(use, fake, reason):
    use(fake)
    assert find_gpus() == [] and no_gpu_reason() == reason


def test_no_driver(use):
    def fail(flags):
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    use(SimpleNamespace(cuInit=fail))
    assert find_gpus() == [] and no_gpu_reason() == "no NVIDIA driver is installed (libcuda is not found)"


def test_no_package(use, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert find_gpus() == []
    assert no_gpu_reason() == "the package 'cuda-bindings' is not installed: pip install cuda-bindings"


def test_the_names_used_exist():
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    assert [name for name in vars(driver()) if not hasattr(real, name)] == []
    for name in vars(driver().CUdevice_attribute):
        assert hasattr(real.CUdevice_attribute, name)


def test_this_machine_answers_either_way():
    assert bool(find_gpus()) != bool(no_gpu_reason())


def test_kernels_are_loaded_lazily_unless_the_user_says_otherwise(use, monkeypatch):
    import os

    monkeypatch.setenv("CUDA_MODULE_LOADING", "EAGER")
    use(driver())
    find_gpus()
    assert os.environ["CUDA_MODULE_LOADING"] == "EAGER"
    monkeypatch.delenv("CUDA_MODULE_LOADING")
    gpu._find.cache_clear()
    seen = []
    fake = driver()
    fake.cuInit = lambda flags: (seen.append(os.environ.get("CUDA_MODULE_LOADING")), (Status.CUDA_SUCCESS,))[1]
    use(fake)
    find_gpus()
    assert seen == ["LAZY"]
    monkeypatch.setenv("CUDA_MODULE_LOADING", "LAZY")  # so that it is taken back at the end
