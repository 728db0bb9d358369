"""Overflow and NaN are found in the layer that makes them, with the number that was too large, before a build."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from engines import build as room
from engines.batch import BatchProfile
from engines.build import BuildRequest, build
from engines.lowering import load, lower
from engines.overflow import check_range, fixed_batch, run_watched
from engines.proxy import proxy_gate, runnable
from engines.store import list_engines
from engines.validation import Validation, answers
from runtime.errors import AccuracyError
from runtime.flavors import Flavor
from runtime.judge import scores
from runtime.onnxruntime_runner import OnnxRuntimeRunner
from tests.engines.graphs import graph_of
from tests.export.micro import micro_answers, micro_export

ROOT = Path(__file__).resolve().parents[2]

# The root of the mean square of numbers that FP16 holds, and whose squares it does not.
SCALE = """g (float[B,4] x) => (float[B,4] y)
{
    narrow = Cast <to = 10> (x)
    square = Mul (narrow, narrow)
    root = Sqrt (square)
    safe = Add (root, one)
    share = Div (narrow, safe)
    y = Cast <to = 1> (share)
}"""


def saved(path, text, dtype=np.float16, **constants):
    """A graph in half precision, as an export leaves it: `y` is FP32, everything else narrow."""
    model = graph_of(text)
    narrow = ir.DataType.FLOAT16 if dtype == np.float16 else ir.DataType.BFLOAT16
    for name, number in constants.items():
        tensor = ir.Tensor(np.array([number], dtype), dtype=narrow, name=name)
        value = ir.Value(name=name, type=ir.TensorType(narrow), shape=tensor.shape, const_value=tensor)
        model.graph.register_initializer(value)
        for node in model.graph:
            for index, read in enumerate(node.inputs):
                if read is not None and read.name == name:
                    node.replace_input_with(index, value)
    for index, node in enumerate(model.graph):
        node.name = f"layer.{index}/{node.op_type}"
        for output in node.outputs:
            if output.name not in ("y", "wide"):
                output.type = ir.TensorType(narrow)
                if node.op_type == "Cast":
                    node.attributes["to"] = ir.AttrInt64("to", int(narrow))
    ir.save(model, path)
    return path


def validation(x, threshold=0.99):
    x = np.array(x, np.float32)
    return Validation({"x": x}, {"y": x / (np.abs(x) + 1)}, "cosine", threshold, "by hand")


def test_the_layer_and_its_magnitude(tmp_path):
    path = saved(tmp_path / "scale.onnx", SCALE, one=1.0)
    x = np.array([[1.0, -300.0, 2.0, 200.0]], np.float32)
    outputs, overflow = run_watched(path, {"x": x})
    assert (overflow.node, overflow.op, overflow.precision) == ("layer.1/Mul", "Mul", "FP16")
    assert overflow.magnitude == 90000 and not overflow.not_a_number
    assert str(overflow) == "layer.1/Mul (Mul) reaches 9e+04, and FP16 ends at 65504"
    assert np.array_equal(outputs["y"], [[0.5, 0.0, outputs["y"][0, 2], outputs["y"][0, 3]]])  # 300 / infinity
    assert list(outputs) == ["y"]
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize(("number", "over"), [(255.875, False), (256.0, True)])
def test_the_last_number_that_fits(number, over, tmp_path):
    """Of neighbours in FP16, one has a square of 65472 and the other one of 65536."""
    path = saved(tmp_path / "scale.onnx", SCALE, one=1.0)
    assert np.float16(number) == number
    assert (run_watched(path, {"x": np.full((1, 4), number, np.float32)})[1] is not None) is over


def test_bf16_has_no_such_limit(tmp_path):
    path = saved(tmp_path / "scale.onnx", SCALE, dtype=ml_dtypes.bfloat16, one=1.0)
    assert run_watched(path, {"x": np.full((1, 4), 3e18, np.float32)})[1] is None


def test_what_an_island_hands_back_is_named_after_the_layer_in_it(tmp_path):
    text = """g (float[B,4] x) => (float[B,4] y)
    {
        wide = Mul (x, x)
        narrow = Cast <to = 10> (wide)
        root = Sqrt (narrow)
        y = Cast <to = 1> (root)
    }"""
    _, overflow = run_watched(saved(tmp_path / "island.onnx", text), {"x": np.full((1, 4), 500, np.float32)})
    assert (overflow.node, overflow.magnitude) == ("layer.0/Mul", 250000)


def test_nan_without_overflow(tmp_path):
    text = """g (float[B,4] x) => (float[B,4] y)
    {
        narrow = Cast <to = 10> (x)
        difference = Sub (narrow, narrow)
        ratio = Div (difference, difference)
        more = Add (ratio, narrow)
        y = Cast <to = 1> (more)
    }"""
    _, overflow = run_watched(saved(tmp_path / "nan.onnx", text), {"x": np.full((1, 4), 7, np.float32)})
    assert overflow.node == "layer.2/Div" and overflow.not_a_number
    assert str(overflow) == "layer.2/Div (Div) makes NaN, of numbers up to 0 in FP16"


def test_infinities_that_the_graph_holds_are_none(tmp_path):
    text = """g (float[B,4] x) => (float[B,4] y)
    {
        narrow = Cast <to = 10> (x)
        masked = Add (narrow, mask)
        weights = Softmax (masked)
        y = Cast <to = 1> (weights)
    }"""
    path = saved(tmp_path / "mask.onnx", text, mask=-np.inf)
    assert run_watched(path, {"x": np.zeros((1, 4), np.float32)})[1].op == "Softmax"  # a row of nothing is NaN
    path = saved(tmp_path / "mask.onnx", text.replace("Softmax", "Exp"), mask=-np.inf)
    assert run_watched(path, {"x": np.zeros((1, 4), np.float32)})[1] is None


def test_the_proxy_sees_what_onnx_runtime_hides(tmp_path):
    path = saved(tmp_path / "scale.onnx", SCALE, one=1.0)
    judged = validation([[1, -300, 2, 200], [1, 2, 3, 4]])
    with runnable(path) as as_it_is, OnnxRuntimeRunner(as_it_is) as runner:
        hidden = scores("cosine", answers(runner, judged, 2), judged.expected)
    gate = proxy_gate(path, judged, 2, "no GPU")
    assert gate.state == "failed" and gate.proxy_scores[0] < 0.9 < 0.9999 < gate.proxy_scores[1]
    assert min(hidden) > 0.99, "ONNX Runtime now rounds by itself: the copy that rounds is no longer needed"


def test_refused_or_noted(tmp_path):
    path = saved(tmp_path / "scale.onnx", SCALE, one=1.0)
    wrong = validation([[1, -300, 2, 200]])
    with pytest.raises(AccuracyError) as refused:
        check_range(path, wrong, "m.engine was not built")
    assert str(refused.value).startswith(
        "m.engine was not built: layer.1/Mul (Mul) reaches 9e+04, and FP16 ends at 65504; the first sample has cosine"
    )
    assert "cat2dog accuracy --search" in str(refused.value) and "\n" not in str(refused.value)
    (note,) = check_range(path, validation([[1, -300, 2, 200]], threshold=0.1), "")
    assert note.startswith("layer.1/Mul (Mul) reaches 9e+04") and note.endswith("nevertheless")
    assert check_range(path, validation([[1, 2, 3, 4]]), "") == ()


def overflowing(folder):
    """The micro checkpoint in FP16 with one layer whose weights were scaled until its result does not fit."""
    neutral = micro_export("fp16").path
    model = load(neutral)
    for name in ("up", "down"):
        value = model.graph.initializers[f"network.blocks.1.mlp.{name}.weight.t.fp16"]
        array = (value.const_value.numpy().astype(np.float32) * 300).astype(np.float16)
        assert np.isfinite(array).all()
        value.const_value = ir.Tensor(array, name=value.name)
    path = folder / "micro-64_fp16.onnx"
    ir.save(model, path, external_data="micro-64_fp16.onnx.data")
    return path


@pytest.mark.parametrize("batch", ["1", "3", "1-4"])
def test_nothing_is_built_of_a_graph_that_overflows(batch, tmp_path, monkeypatch):
    feed, expected = micro_answers()
    monkeypatch.setattr(room, "run_child", lambda *given: pytest.fail("the builder was started"))
    request = BuildRequest(
        onnx=overflowing(tmp_path), checkpoint="micro-64", precision="fp16", attention="decomposed",
        validation=Validation(feed, expected, "psnr", 30.0, "PyTorch"), batch=BatchProfile.parse(batch),
        flavor=Flavor("tensorrt_rtx", "1.7.1", "python", can_build=True, can_run=False), root=tmp_path / "engines",
    )  # fmt: skip
    said = (
        r"\.engine was not built: network\.blocks\.1\.mlp\.down/MatMul \(MatMul\) reaches \d\.\d+e\+\d+, and FP16 ends"
    )
    with pytest.raises(AccuracyError, match=said):
        build(request)
    assert list_engines(request.root) == []
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_sound_graph_has_none():
    feed, expected = micro_answers()
    for precision in ("fp16", "bf16"):
        path = lower(micro_export(precision).path, "decomposed", BatchProfile(1, 1, 1)).path
        assert fixed_batch(path) == 1 and fixed_batch(micro_export(precision).path) is None
        outputs, overflow = run_watched(path, {name: array[:1] for name, array in feed.items()})
        assert overflow is None
        assert scores("psnr", outputs, {"dog": expected["dog"][:1]})[0] > 40


MEMORY = """
import resource, sys
import numpy as np
from pathlib import Path
from engines.overflow import run_watched

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

run_watched(Path(sys.argv[1]), {"x": np.ones((1, 4), np.float32)})
before = peak()
run_watched(Path(sys.argv[1]), {"x": np.ones((1 << 18, 4), np.float32)})
print(peak() - before)
"""


def test_values_are_not_kept_until_their_numbers_are_taken(tmp_path):
    """60 values of 4 MiB one after the other take the memory of a few: a long network's would not fit together."""
    steps = "\n".join(f"v{i + 1} = Tanh (v{i})" for i in range(60))
    text = f"g (float[B,4] x) => (float[B,4] y) {{\nv0 = Cast <to = 10> (x)\n{steps}\ny = Cast <to = 1> (v60)\n}}"
    path = saved(tmp_path / "long.onnx", text)
    done = subprocess.run([sys.executable, "-c", MEMORY, path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 120, f"{done.stdout} MiB"
