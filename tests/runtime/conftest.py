"""A runner on stand-ins for TensorRT and, where no GPU is asked for, for CUDA."""

from __future__ import annotations

import pytest

from runtime import cuda, gpu, tensorrt_runner
from runtime.gpu import Gpu
from runtime.tensorrt_runner import TensorRTRunner
from tests.runtime.fake_cuda import FakeCuda
from tests.runtime.fake_tensorrt import FakeTensorRT
from tests.runtime.stand_ins import KEY, file_engine


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.gpu)])
def api(request, monkeypatch):
    """CUDA, fake or real; either way the machine has one L4 as far as the engine is concerned."""
    if request.param == "real":
        if not gpu.find_gpus():
            pytest.skip(gpu.no_gpu_reason())
        api = cuda.bindings()
    else:
        api = FakeCuda()
        monkeypatch.setattr(cuda, "bindings", lambda: api)
    monkeypatch.setattr(gpu, "find_gpus", lambda: [Gpu(0, "NVIDIA L4", "8.9", 1 << 30, "13.0")])
    return api


@pytest.fixture
def load(tmp_path, monkeypatch, api):
    """A runner of these tensors under a TensorRT of that style; closed at the end."""
    made = []

    def make(tensors, style="10", plan=b"plan", key=KEY, **options):
        trt = FakeTensorRT(tensors, style)
        monkeypatch.setattr(tensorrt_runner, "load_flavor", lambda name: trt)
        runner = TensorRTRunner(file_engine(tmp_path, plan, key), **options)
        made.append(runner)
        return runner, trt.engine

    yield make
    for runner in made:
        runner.close()
    if isinstance(api, FakeCuda):
        assert api.lost or not api.alive, "something was not freed"
