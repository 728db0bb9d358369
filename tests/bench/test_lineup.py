"""Which peers and rungs there are, and why some are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import ladder as ladder_module
from bench import lineup as lineup_module
from bench.ladder import ladder
from bench.lineup import Subject, filed_engines, lineup
from runtime.flavors import Flavor
from runtime.gpu import Gpu
from tests.runtime.stand_ins import KEY, file_engine

FLAVORS = [
    Flavor("tensorrt", "8.6.0", "/python3.10", True, True),
    Flavor("tensorrt_rtx", None, "python", False, False, "not installed"),
]


@pytest.fixture
def subject(tmp_path):
    (tmp_path / "engines/gpu").mkdir(parents=True)
    onnx = tmp_path / "a.onnx"
    return Subject(Path("models/tiny-128"), "tiny-128", "fp16", onnx, onnx, "fp32", tmp_path / "engines")


@pytest.fixture
def on_gpu(monkeypatch):
    gpus = [Gpu(0, "NVIDIA L4", "8.9", 1 << 30, "13.0")]
    for module in (lineup_module, ladder_module):
        monkeypatch.setattr(module, "find_gpus", lambda: gpus)
    monkeypatch.setattr(lineup_module, "_torch_sees_gpu", lambda: True)
    monkeypatch.setenv("CAT2DOG_PYTHON_TENSORRT", "/python3.10")


@pytest.fixture
def off_gpu(monkeypatch):
    for module in (lineup_module, ladder_module):
        monkeypatch.setattr(module, "find_gpus", lambda: [])
    monkeypatch.setattr(lineup_module, "no_gpu_reason", lambda: "no GPU here")


def by_name(entries):
    return {entry.name: entry for entry in entries}


def engine(subject, form, **changes):
    folder = subject.engines / form
    folder.mkdir()
    attention, _, linear = form.partition("-")
    options = {"linear": "plugin"} if linear else {}
    return file_engine(folder, key=replace(KEY, attention=attention, options=options, **changes))


def test_on_a_gpu(subject, on_gpu):
    path = engine(subject, "plugin")
    engine(subject, "decomposed", checkpoint="another")
    peers = by_name(lineup(subject, FLAVORS, [("fused", path)]))
    assert peers["torch-sdpa"].spec["device"] == "cuda" and peers["torch-sdpa"].alone
    assert peers["torch-compile-max-autotune"].spec["precision"] == "fp16"
    assert not peers["torch-compile-max-autotune"].alone
    for name in ("tensorrt-plugin", "fused"):
        assert peers[name].spec == {"kind": "tensorrt", "engines": [str(path)]}
        assert peers[name].python == "/python3.10" and peers[name].extra["engine"]["build_seconds"] == 1.0
    assert peers["tensorrt-decomposed"].spec is None
    assert "no engine is filed: cat2dog build --model models/tiny-128" in peers["tensorrt-decomposed"].reason
    assert peers["tensorrt-plugin-linear"].spec is None, "linear layers of TensorRT's own are another engine"
    assert "has no native attention (10.14 brought it)" in peers["tensorrt-native"].reason
    assert peers["onnxruntime-cpu"].most_batch == 1
    assert not any(name.startswith("tensorrt_rtx") for name in peers)


def test_without_a_gpu(subject, off_gpu):
    engine(subject, "plugin")
    peers = by_name(lineup(subject, FLAVORS))
    assert peers["torch-naive"].spec["precision"] == "fp32" and peers["torch-naive"].device == "cpu"
    assert peers["torch-graph"].reason == "CUDA graphs need a GPU: no GPU here"
    assert peers["onnxruntime-cuda"].reason == "no GPU here" == peers["tensorrt-plugin"].reason
    assert peers["tensorrt-plugin"].extra["engine"]["bytes"] == 4, "what its manifest says is shown all the same"
    assert peers["onnxruntime-cpu"].spec["provider"] == "cpu" and peers["onnxruntime-cpu"].most_batch is None


def test_only_sound_engines_of_this_checkpoint_and_precision(subject):
    good = engine(subject, "plugin")
    engine(subject, "native", precision="bf16")
    damaged = engine(subject, "decomposed")
    damaged.with_suffix(".json").write_text("{}")
    assert {name: [path for path, _ in each] for name, each in filed_engines(subject).items()} == {
        "tensorrt plugin": [good]
    }


def test_the_rungs_on_a_gpu(subject, on_gpu):
    engine(subject, "decomposed")
    engine(subject, "plugin")
    engine(subject, "plugin-linear")
    mine = file_engine(subject.engines)
    rungs = ladder(subject, FLAVORS, [("mine", mine)])
    assert [rung.name for rung in rungs] == [
        "research form", "SDPA", "fp16", "uint8 I/O", "TensorRT", "fused attention", "fused linear layers",
        "mine", "CUDA graph", "codec", "overlap",
    ]  # fmt: skip
    # Each changes one thing of the one before it.
    switches = ["attention", "precision", "io", "kind", "engines", "engines", "engines", "cuda_graph", "codec", None]
    for below, above, switch in zip(rungs, rungs[1:], switches, strict=False):
        if switch == "kind":
            assert (below.spec["kind"], above.spec["kind"]) == ("torch", "tensorrt")
            continue
        assert {key for key in above.spec if above.spec[key] != below.spec.get(key)} == ({switch} if switch else set())
    assert [rung.levels for rung in rungs[-2:]] == [("network", "picture"), ("network", "stream")]
    assert {rung.most_batch for rung in rungs} == {1}


def test_the_rungs_without_a_gpu(subject, off_gpu):
    rungs = by_name(ladder(subject, FLAVORS))
    assert list(rungs) == ["research form", "SDPA", "fp16", "uint8 I/O", "ONNX Runtime", "codec", "overlap"]
    assert rungs["fp16"].spec is None and "is a rung for GPUs" in rungs["fp16"].reason
    assert rungs["overlap"].spec["kind"] == "onnxruntime" and rungs["overlap"].spec["codec"] == ".png"
