"""Q/DQ graphs by Model Optimizer: what is asked of it, what it cannot do, and what a real one gives."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest

from accuracy.quantization import PYTHON_VARIABLE, SCHEMES, Scheme, calibration_of, modelopt_python, quantize
from bench.quantization import chosen, says
from engines.lowering import load
from engines.validation import Validation, answers
from runtime.errors import InputError, ToolchainError
from runtime.judge import scores
from runtime.onnxruntime_runner import OnnxRuntimeRunner
from tests.accuracy import plants

pytestmark = pytest.mark.xdist_group("accuracy")

LINEAR = next(scheme for scheme in SCHEMES if scheme.name == "int8-max-linear")

STAND_IN = """
import json, shutil

def quantize(path, **asked):
    data = asked.pop("calibration_data")
    if asked["quantize_mode"] == "fp8":
        raise ValueError("no such\\nmode")
    shutil.copyfile(path, asked["output_path"])
    with open(asked["output_path"] + ".asked", "w") as file:
        json.dump({**asked, "samples": {name: list(array.shape) for name, array in data.items()}}, file)
"""


def test_schemes_name_the_products_they_quantize():
    model = load(plants.graph("fp32"))
    layers = {"mlp.up", "mlp.down", "attention.qkv", "attention.out"}
    assert set(LINEAR.nodes(model)) == {f"network.blocks.{n}.{layer}/MatMul" for n in range(4) for layer in layers}
    assert Scheme("any", "int8", "max").nodes(model) == []
    with pytest.raises(InputError, match=r"no matrix product of the graph is in a layer \('mlp.middle',\)"):
        Scheme("x", "int8", "max", ("mlp.middle",)).nodes(model)
    with pytest.raises(InputError, match="int4 by max; expected one of int8, fp8"):
        Scheme("x", "int4", "max")


def test_none_of_what_is_judged_calibrates():
    feed = plants.recipe().validation(2)
    turned, what = calibration_of(feed)
    assert turned["image"].shape == (4, 64, 64, 3) and "mirrored" in what
    assert np.array_equal(turned["image"][0][:, ::-1], feed["image"][0])
    assert not any(np.array_equal(one, other) for one in turned["image"] for other in feed["image"])
    floats = {"x": np.ones((2, 3), np.float32)}
    assert calibration_of(floats) == (floats, "the validation samples themselves")


def test_without_model_optimizer_it_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    with pytest.raises(InputError, match=r"pip install -r accuracy/modelopt\.txt, and CAT2DOG_PYTHON_MODELOPT="):
        modelopt_python()
    with pytest.raises(InputError, match="this Python has no Model Optimizer for ONNX"):
        quantize(plants.graph("fp32"), tmp_path / "q.onnx", LINEAR, {"image": np.ones(1)}, sys.executable)


def test_what_model_optimizer_is_asked(tmp_path, monkeypatch):
    package = tmp_path / "modelopt/onnx/quantization"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN)
    about = tmp_path / "nvidia_modelopt-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: nvidia-modelopt\nVersion: 0.1\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    target = tmp_path / "q.onnx"
    feed = plants.recipe().validation(2)
    versions = quantize(plants.graph("fp32"), target, LINEAR, feed, sys.executable)
    assert versions["nvidia-modelopt"] == "0.1" and versions["numpy"] == np.__version__
    asked = json.loads((tmp_path / "q.onnx.asked").read_text())
    assert asked["quantize_mode"] == "int8" and asked["calibration_method"] == "max"
    assert asked["high_precision_dtype"] == "fp32" and asked["samples"] == {"image": [2, 64, 64, 3]}
    assert (
        r"network\.blocks\.0\.mlp\.up/MatMul$" in asked["nodes_to_quantize"] and len(asked["nodes_to_quantize"]) == 16
    )
    with pytest.raises(ToolchainError, match=r"^Model Optimizer failed: no such mode$"):
        quantize(plants.graph("fp32"), target, Scheme("x", "fp8", "max"), feed, sys.executable)


@pytest.mark.skipif(PYTHON_VARIABLE not in os.environ, reason=f"{PYTHON_VARIABLE} names no Python with Model Optimizer")
@pytest.mark.parametrize("mode", ["int8", "fp8"])
def test_real_graphs_are_near_and_not_equal(mode, tmp_path):
    feed = plants.recipe().validation(2)
    judged = Validation(feed, plants.recipe().reference(feed), "psnr", 30.0, "PyTorch")
    source = plants.graph("fp32")
    scheme = Scheme("x", mode, "max", LINEAR.layers)
    target = tmp_path / f"{mode}.onnx"
    quantize(source, target, scheme, calibration_of(feed)[0], modelopt_python())
    pairs = sum(node.op_type == "DequantizeLinear" for node in load(target).graph)
    assert pairs >= 2 * len(scheme.nodes(load(source)))
    with OnnxRuntimeRunner(target, optimize=False) as runner:
        worst = min(scores("psnr", answers(runner, judged, 1), judged.expected))
    assert 15 < worst < 60


def test_what_is_said_of_the_rows():
    rows = [
        {"scheme": "fp16", "psnr_db_min": 58.3},
        {"scheme": "int8-max-all", "psnr_db_min": 23.0},
        {"scheme": "int8-max-mlp", "psnr_db_min": 46.0},
        {"scheme": "fp8-max-mlp", "psnr_db_min": 29.9},
    ]
    assert says(rows, 30.0) == (
        "INT8: 1 of 2 schemes pass the gate of 30 dB; the best, int8-max-mlp, has 46.0 dB on the worst picture and "
        "reaches the aim of 45; FP8: 0 of 1 schemes pass the gate of 30 dB; the best, fp8-max-mlp, has 29.9 dB on the "
        "worst picture and misses the aim of 45; FP16 has 58.3"
    )


def test_schemes_are_chosen_by_name():
    assert chosen(None) == SCHEMES and chosen(["int8-max-linear"]) == (LINEAR,)
    with pytest.raises(InputError, match="there is no scheme 'int4'; expected one of int8-max-all"):
        chosen(["int4"])
