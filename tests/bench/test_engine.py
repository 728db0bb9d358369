"""The bench of an engine, on stand-ins for TensorRT and CUDA."""

from __future__ import annotations

import json

import pytest

from bench import engine_table
from bench.engine import main
from runtime import cuda, gpu, tensorrt_runner
from runtime.gpu import Gpu
from tests.runtime.fake_cuda import FakeCuda
from tests.runtime.fake_tensorrt import FakeTensorRT
from tests.runtime.stand_ins import file_engine, image_network


@pytest.fixture(params=["8.6", "10", "rtx"])
def made(request, tmp_path, monkeypatch):
    """An engine file, TensorRT and CUDA."""
    api, trt = FakeCuda(), FakeTensorRT(image_network(), request.param)
    monkeypatch.setattr(cuda, "bindings", lambda: api)
    monkeypatch.setattr(gpu, "find_gpus", lambda: [Gpu(0, "NVIDIA L4", "8.9", 1 << 30, "13.0")])
    monkeypatch.setattr(tensorrt_runner, "load_flavor", lambda name: trt)
    return file_engine(tmp_path), trt, api


def test_what_is_measured_and_how_it_is_shown(made, tmp_path, capsys):
    path, trt, api = made
    output = tmp_path / "results.json"
    assert main(["--engine", str(path), str(path), "--output", str(output), "--repeats", "30"]) == 0
    assert capsys.readouterr().out == 2 * "x.engine: 0.500 ms, gate passed ['50.0']\n"
    rows = json.loads(output.read_text())["engines"]
    assert len(rows) == 2 and rows[0] == rows[1]
    assert rows[0]["ms"] == {"median": 0.5, "least": 0.5, "p95": 0.5, "most": 0.5}
    assert (rows[0]["batch"], rows[0]["checkpoint"], "layers" in rows[0]) == (8, "tiny-128", False)
    assert (trt.engine.contexts, api.captures, api.launches) == (6, 6, 100)  # three sets of inputs, twice
    assert not api.alive, "something was not freed"
    assert engine_table.table([output]).splitlines()[2:] == 2 * [
        "| tiny-128 | fp16 | native | tensorrt | 0.50 (0.50) | 50.0 of 1 | 0 | 1 |"
    ]


def test_a_batch_that_the_engine_does_not_take(made, tmp_path, capsys):
    path, _, api = made
    assert main(["--engine", str(path), "--output", str(tmp_path / "results.json"), "--batch", "9"]) == 2
    said = "error: TensorRT refused shape [9, 8, 8, 3] for input 'image': shape is outside the profile\n"
    assert capsys.readouterr().err == said and not api.alive


def test_without_a_gpu(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "find_gpus", lambda: [])
    assert main(["--engine", str(made[0]), "--output", str(tmp_path / "results.json")]) == 1
    assert capsys.readouterr().err.startswith("error: running an engine needs an NVIDIA GPU: ")


def test_an_engine_whose_gate_is_pending_is_shown_without_scores(tmp_path):
    gate = {"state": "pending", "metric": "psnr", "scores": []}
    row = {"checkpoint": "c", "precision": "fp16", "attention": "native", "bytes": 2e6, "build_seconds": 3.2}
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"engines": [{**row, "ms": {"median": 1, "p95": 2}, "gate": gate}]}))
    assert (
        engine_table.table([path]).splitlines()[2] == "| c | fp16 | native | tensorrt | 1.00 (2.00) | pending | 2 | 3 |"
    )
