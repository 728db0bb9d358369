"""Each kind of peer by itself: TensorRT on stand-ins, PyTorch on the CPU."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bench.peers.peer import Clock, make_peer
from bench.peers.tensorrt_peer import TensorRTPeer
from runtime import cuda, gpu, tensorrt_runner
from runtime.errors import InputError, ToolchainError
from runtime.gpu import Gpu
from runtime.metrics import psnr
from tests.export.micro import micro_recipe
from tests.runtime.fake_cuda import FakeCuda
from tests.runtime.fake_tensorrt import FakeTensorRT
from tests.runtime.stand_ins import file_engine, image_network, images


@pytest.fixture(params=["8.6", "10", "rtx"])
def made(request, tmp_path, monkeypatch):
    """An engine file, TensorRT and CUDA."""
    api, trt = FakeCuda(), FakeTensorRT(image_network(), request.param)
    monkeypatch.setattr(cuda, "bindings", lambda: api)
    monkeypatch.setattr(gpu, "find_gpus", lambda: [Gpu(0, "NVIDIA L4", "8.9", 1 << 30, "13.0")])
    monkeypatch.setattr(tensorrt_runner, "load_flavor", lambda name: trt)
    monkeypatch.setattr("runtime.flavors.load_flavor", lambda name: trt)
    return file_engine(tmp_path), trt, api


@pytest.mark.parametrize("graph", [True, False])
def test_an_engine(made, graph):
    path, _, api = made
    peer = make_peer({"kind": "tensorrt", "engines": [str(path)], "cuda_graph": graph})
    clock = Clock(time.time() - 1)
    peer.open(images(1), clock)
    stages = ["import", "CUDA", "load", "context", "first run", *(["graph"] if graph else [])]
    assert list(clock.seconds) == stages and clock.seconds["import"] >= 1
    assert api.captures == graph
    for batch in (1, 4):
        peer.prepare(batch)
        assert peer.network(5) == [0.5] * 5
        given = images(batch)
        assert np.array_equal(peer.run(given), 255 - given) or peer.run(given).shape == given.shape
    facts = peer.facts()
    assert facts["device_bytes"] > 0 and facts["engine"]["file"] == "x.engine"
    assert facts["engine"]["gate"]["scores"] == ["50.0"] and facts["engine"]["flavor"] == "tensorrt 1.0"
    with pytest.raises(InputError, match="no engine of it takes batch 9, only 1 to 8"):
        peer.prepare(9)
    peer.close()
    assert not api.alive, "something was not freed"


def test_the_engine_made_for_a_batch_size_runs_it(tmp_path):
    from dataclasses import replace

    from tests.runtime.stand_ins import KEY

    paths = []
    for number, profile in enumerate([(1, 4, 8), (4, 4, 4)]):
        (tmp_path / str(number)).mkdir()
        paths.append(str(file_engine(tmp_path / str(number), key=replace(KEY, batch=profile))))
    peer = TensorRTPeer({"engines": paths})
    assert [peer._path_for(batch) for batch in (1, 4, 8)] == [paths[0], paths[1], paths[0]]


def torch_peer(**changes):
    spec = {"kind": "torch", "model": str(micro_recipe().folder), "device": "cpu", "precision": "fp32"}
    return make_peer({**spec, "attention": "naive", "mode": "eager", **changes})


@pytest.mark.parametrize("changes", [{}, {"attention": "sdpa"}, {"io": "float"}, {"precision": "bf16"}], ids=str)
def test_torch_answers_as_the_reference_does(changes):
    recipe = micro_recipe()
    image = recipe.validation(1)["image"]
    peer, clock = torch_peer(**changes), Clock(time.time())
    peer.open(image, clock)
    assert list(clock.seconds) == ["import", "load", "first run"]
    peer.prepare(1)
    assert psnr(peer.run(image), recipe.reference({"image": image})["dog"]) > (30 if "precision" in changes else 55)
    assert all(ms > 0 for ms in peer.network(2))
    facts = peer.facts()
    assert "torch" in facts["versions"] and facts["device_bytes"] > 1e7


def test_what_torch_cannot_do_here():
    with pytest.raises(ValueError, match="mode 'fast' is not one of eager, graph"):
        torch_peer(mode="fast")
    with pytest.raises(ToolchainError, match="CUDA graphs need a GPU"):
        torch_peer(mode="graph").open(np.zeros((1, 64, 64, 3), np.uint8), Clock(time.time()))
    with pytest.raises(ValueError, match="no peer is of kind 'tvm'"):
        make_peer({"kind": "tvm"})
