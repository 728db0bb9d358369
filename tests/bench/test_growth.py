"""What engines take at each batch size, on stand-ins for TensorRT and CUDA."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bench.growth import main, peer_name
from bench.schema import read_result
from runtime import cuda, gpu, tensorrt_runner
from runtime.engine_file import engine_manifest
from runtime.gpu import Gpu
from runtime.manifest import LinearChoice
from tests.runtime.fake_cuda import FakeCuda
from tests.runtime.fake_tensorrt import FakeTensorRT
from tests.runtime.stand_ins import KEY, file_engine, image_network

MODEL = "models/tiny-128"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """An engine of batch 1 to 8 and one that is said to be of batch 4 alone."""
    api, trt = FakeCuda(), FakeTensorRT(image_network(), "8.6")
    monkeypatch.setattr(cuda, "bindings", lambda: api)
    monkeypatch.setattr(gpu, "find_gpus", lambda: [Gpu(0, "NVIDIA L4", "8.9", 1 << 30, "13.0")])
    monkeypatch.setattr(tensorrt_runner, "load_flavor", lambda name: trt)
    for name in ("any", "four", "other"):
        (tmp_path / name).mkdir()
    engines = {
        "any": file_engine(tmp_path / "any"),
        "four": file_engine(tmp_path / "four", key=replace(KEY, batch=(4, 4, 4))),
        "other": file_engine(tmp_path / "other", key=replace(KEY, precision="bf16")),
    }
    loaded = []
    monkeypatch.setattr(
        "bench.growth.load_engine",
        lambda path: loaded.append(path.parent.name) or tensorrt_runner.load_engine(path),
    )
    return engines, loaded, api


def test_a_result_of_the_schema(made, tmp_path, capsys):
    engines, loaded, api = made
    output = tmp_path / "growth.json"
    words = ["--engine", str(engines["any"]), str(engines["four"]), "--batch", "1", "4", "8", "16", "--repeats", "10"]
    assert main([*words, "--model", MODEL, "--output", str(output)]) == 0
    assert loaded == ["any", "four", "any"]
    result = read_result(output)
    (row,) = result["peers"]
    assert (result["kind"], row["name"], result["subject"]["checkpoint"]) == ("growth", "tensorrt-native", "tiny-128")
    assert [(each["batch"], each["ms"]["median"], each["ms"]["rounds"]) for each in row["latency"]] == [
        (1, 0.5, 5), (4, 0.5, 5), (8, 0.5, 5)
    ]  # fmt: skip
    assert row["latency"][2]["images_per_second"] == 16000
    assert row["latency"][1]["tflops"] == pytest.approx(4 * result["subject"]["flops"] / 0.5e9, rel=1e-3)
    assert set(row["device_bytes_at"]) == {"1", "4", "8"} and row["device_bytes"] == row["device_bytes_at"]["1"]
    said = capsys.readouterr()
    assert "tensorrt-native, batch 4: 0.500 ms, " in said.out and "batch 16: no engine given takes it" in said.err
    assert not api.alive, "something was not freed"
    assert json.loads(output.read_text())["machine"]["command"].startswith("python -m bench.growth --engine ")


@pytest.mark.parametrize(
    ("names", "words", "said"),
    [
        (("any", "other"), (), "engines of tiny-128 fp16 and tiny-128 bf16 were given: one at a time"),
        (("four",), ("--batch", "1"), "no engine of tensorrt-native takes any of the batch sizes 1"),
        (("any",), ("--repeats", "2"), "at least 5 repeats"),
        (("any",), ("--model", "models/none"), "none"),
    ],
)
def test_wrong_use(made, tmp_path, capsys, names, words, said):
    engines = [str(made[0][name]) for name in names]
    assert main(["--engine", *engines, "--model", MODEL, *words, "--output", str(tmp_path / "o.json")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "o.json").exists()


def test_an_engine_whose_layers_were_chosen_has_another_name_than_one_without_kernels_of_ours(made):
    plain = engine_manifest(made[0]["any"])
    chosen = {form: (LinearChoice("up", form, "measured"),) for form in ("plugin", "tensorrt")}
    assert peer_name(plain) == peer_name(replace(plain, linear=chosen["tensorrt"])) == "tensorrt-native"
    assert peer_name(replace(plain, linear=chosen["plugin"])) == "tensorrt-native-linear"
