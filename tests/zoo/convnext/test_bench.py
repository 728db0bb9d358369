"""The bench measures what runs here, and says why the rest did not; INT8 has a command of its own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from bench.schema import read_result
from runtime.onnxruntime_runner import OnnxRuntimeRunner
from tests.zoo.convnext.made import SMALL
from zoo.convnext import bench, quantize
from zoo.convnext.checkpoint import save
from zoo.convnext.graphs import fixed_batch
from zoo.convnext.model import seeded

DATA = ["--synthetic", "10", "--classes", "4", "--device", "cpu"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkpoint, and its INT8 files."""
    folder = tmp_path_factory.mktemp("bench")
    save(folder / "a.safetensors", seeded(SMALL))
    words = ["--checkpoint", str(folder / "a.safetensors"), *DATA, "--folder", str(folder / "int8")]
    assert quantize.main([*words, "--steps", "2", "--batch", "8", "--calibration", "8"]) == 0
    return folder


@pytest.mark.slow
def test_int8_is_written_and_judged(made):
    result = read_result(made / "int8" / "int8.json")
    assert [peer["name"] for peer in result["peers"]] == ["fp32", "int8 from calibration", "int8 after 2 steps"]
    assert result["peers"][0]["accuracy"]["agree"] == 1 and result["peers"][1]["accuracy"]["agree"] > 0.5
    files = sorted(path.name for path in (made / "int8").glob("*int8_*d.onnx"))
    assert files == ["convnext-gelu-32-a_int8_calibrated.onnx", "convnext-gelu-32-a_int8_trained.onnx"]


@pytest.mark.slow
def test_forms_are_timed_and_judged(made, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("CAT2DOG_PYTHON_TENSORRT", raising=False)
    int8 = made / "int8" / "convnext-gelu-32-a_int8_calibrated.onnx"
    words = ["--checkpoint", str(made / "a.safetensors"), *DATA, "--rows", "eager-fp32", "graph-fp16", "--kernels"]
    words += ["--onnx", str(int8), "--int8", str(int8), "--batch", "1", "2", "--rounds", "2", "--turn-ms", "5"]
    assert bench.main([*words, "--output", str(tmp_path / "r.json")]) == 0
    result = read_result(tmp_path / "r.json")
    rows = {peer["name"]: peer for peer in result["peers"]}
    assert result["complete"] and result["subject"]["parameters"] > 0
    for name in ("eager-fp32", "onnxruntime-int8_calibrated"):
        assert [each["batch"] for each in rows[name]["latency"]] == [1, 2] and rows[name]["status"] == "measured"
        assert rows[name]["latency"][0]["ms"]["rounds"] == 2
    assert rows["eager-fp32"]["accuracy"]["agree"] == 1
    assert rows["onnxruntime-int8_calibrated"]["accuracy"]["agree"] >= 0.5
    assert rows["graph-fp16"]["status"] == "absent" and rows["graph-fp16"]["reason"] == "CUDA graphs need a GPU"
    assert "CAT2DOG_PYTHON_TENSORRT" in rows["tensorrt-int8_calibrated"]["reason"]
    assert "eager-fp32" in capsys.readouterr().out


def test_when_the_time_is_over_nothing_new_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.convnext.measured.time.monotonic", iter(range(0, 10_000, 30)).__next__)
    words = ["--size", "tiny", *DATA, "--rows", "eager-fp32", "--batch", "1", "2", "--seconds", "45"]
    bench.main([*words, "--rounds", "2", "--turn-ms", "1", "--output", str(tmp_path / "r.json")])
    row = read_result(tmp_path / "r.json")["peers"][0]
    assert row["status"] == "partly" and "batch 2: no time was left" in row["reason"] and len(row["latency"]) == 1


class Strange(Exception):
    """As Triton's errors: none of Python's own."""


def test_a_form_that_fails_costs_no_other_its_times(tmp_path, monkeypatch, capsys):
    class Row:
        def __init__(self, form, network, device):
            self.form, self.turns = form, 0

        def prepare(self, batch):
            if self.form.name == "eager-fp32" and batch == 2:
                raise Strange("no shared\nmemory")

        def times(self, repeats):
            self.turns += 1
            if self.form.name == "compile-fp32" and self.turns > 2:
                raise Strange("lost")
            return [1.0] * repeats

        def answers(self, images, batch):
            return np.eye(4, dtype=np.float32)[np.arange(len(images)) % 4]

    monkeypatch.setattr("zoo.convnext.measured.TorchRow", Row)
    words = ["--size", "tiny", *DATA, "--rows", "eager-fp32", "compile-fp32", "compile-fp32-relu", "--batch", "1", "2"]
    assert bench.main([*words, "--turn-ms", "1", "--output", str(tmp_path / "r.json")]) == 0
    eager, compiled, relu = read_result(tmp_path / "r.json")["peers"]
    assert [peer["status"] for peer in (eager, compiled, relu)] == ["partly", "partly", "measured"]
    assert eager["reason"] == "batch 2: no shared memory" and [each["batch"] for each in eager["latency"]] == [1]
    assert compiled["reason"].startswith("timing at batch 1: lost") and compiled["latency"][0]["ms"]["rounds"] == 1
    assert [each["ms"]["rounds"] for each in relu["latency"]] == [4, 4]


@pytest.mark.slow
def test_a_fixed_batch_computes_the_same(made, tmp_path):
    source = made / "int8" / "convnext-gelu-32-a_int8_calibrated.onnx"
    path = fixed_batch(source, 3, tmp_path / "fixed.onnx")
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    with OnnxRuntimeRunner(source) as one, OnnxRuntimeRunner(path) as other:
        assert other.inputs[0].shape == (3, 32, 32, 3)
        wanted, got = (runner.infer({"image": images})["logits"] for runner in (one, other))
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    onnx.checker.check_model(str(path), full_check=True)


@pytest.mark.parametrize(
    ("module", "words", "said"),
    [
        (bench, ["--batch", "0"], "expected sizes of 1 to 4096"),
        (bench, ["--rows", "fast"], "there is no form 'fast'; expected some of eager-fp32"),
        (bench, ["--rounds", "1"], "--rounds 1; expected 2 to 100"),
        (bench, ["--size", "tiny", "--onnx", "nowhere.onnx"], "nowhere.onnx does not exist or is no file"),
        (bench, ["--checkpoint", "nowhere.safetensors"], "is no checkpoint of a ConvNeXt"),
        (quantize, ["--synthetic", "1", "--steps", "-1"], "--steps -1; expected 0 to"),
        (quantize, ["--scheme", "all"], "one of the arguments --data --synthetic is required"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, capsys, module, words, said):
    own = ["--output", str(tmp_path / "r.json")]
    assert module.main([*words, *own, "--device", "cpu"]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err and "\n" not in err


@pytest.mark.slow
def test_compiled_it_is_timed_too(tmp_path):
    words = ["--size", "tiny", *DATA, "--rows", "compile-fp32", "compile-fp32-relu", "--batch", "1"]
    assert bench.main([*words, "--seconds", "200", "--rounds", "2", "--output", str(tmp_path / "r.json")]) == 0
    peers = read_result(tmp_path / "r.json")["peers"]
    assert [peer["status"] for peer in peers] == ["measured", "measured"]
    assert "accuracy" in peers[0] and "accuracy" not in peers[1]
