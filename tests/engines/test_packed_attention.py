"""TensorRT 8.6 and packed queries, keys, values: the smallest case of its fault, and that what is built avoids it."""

from __future__ import annotations

import collections
import hashlib
import json
import math
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from engines.process import run_child
from engines.qkv_split import split_packed_qkv
from runtime.flavors import TENSORRT, find_flavor
from runtime.gpu import find_gpus, no_gpu_reason
from runtime.manifest import Build, EngineKey, Gate, Manifest, write_manifest
from tests.engines.packed_attention import FORMS, answer, inputs, packed_attention, weights
from tests.export.micro import run_onnx

ROOT = Path(__file__).resolve().parents[2]
SMALL = (16, 2, 8)
# The last is one block of 500m-256, where the fault was seen.
SIZES = [SMALL, (64, 2, 32), (256, 20, 64)]


def decibels(got, expected):
    """PSNR with the range of the expected values as peak."""
    error = float(np.sqrt(np.mean((got.astype(np.float64) - expected) ** 2)))
    return math.inf if error == 0 else 20 * math.log10(float(np.ptp(expected)) / error)


def kinds(model):
    return collections.Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_both_forms_give_the_same_numbers(size, tmp_path):
    x, expected = inputs(*size), answer(inputs(*size), weights(*size[1:]), size[1])
    got = {}
    for form in FORMS:
        model = packed_attention(form, *size)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, tmp_path / f"{form}.onnx")
        got[form] = run_onnx(tmp_path / f"{form}.onnx", {"x": x})["y"]
        assert decibels(got[form], expected) > 110
    np.testing.assert_array_equal(got["unbind"], got["split"])
    if size == SMALL:
        assert all((tmp_path / f"{form}.onnx").stat().st_size < 6000 for form in FORMS)


def test_the_same_seed_gives_the_same_file():
    for form in FORMS:
        assert packed_attention(form, *SMALL) == packed_attention(form, *SMALL)
        assert packed_attention(form, *SMALL, seed=1) != packed_attention(form, *SMALL)
    with pytest.raises(ValueError, match="form 'chunk' is not one of unbind, split"):
        packed_attention("chunk", *SMALL)


def test_the_first_form_is_rewritten_into_the_second(tmp_path):
    onnx.save(onnx.shape_inference.infer_shapes(packed_attention("unbind", *SMALL)), tmp_path / "unbind.onnx")
    model = ir.load(tmp_path / "unbind.onnx")
    assert split_packed_qkv(model) == 1
    ir.save(model, tmp_path / "rewritten.onnx")
    rewritten = onnx.load(tmp_path / "rewritten.onnx")
    assert kinds(rewritten) == kinds(packed_attention("split", *SMALL))
    feed = {"x": inputs(*SMALL)}
    before, after = (run_onnx(tmp_path / f"{name}.onnx", feed)["y"] for name in ("unbind", "rewritten"))
    np.testing.assert_array_equal(before, after)
    assert split_packed_qkv(ir.from_proto(onnx.shape_inference.infer_shapes(packed_attention("split", *SMALL)))) == 0


@pytest.fixture(scope="module")
def tensorrt_8_6():
    if not find_gpus():
        pytest.skip(no_gpu_reason())
    flavor = find_flavor(TENSORRT)
    if not (flavor.version or "").startswith("8.6"):
        pytest.skip(f"needs TensorRT 8.6, but there is {flavor.version or 'none'}: {flavor.reason}")
    if not flavor.can_run:
        pytest.skip(flavor.reason)
    return flavor


RUN = """
import json, sys
import numpy as np
from runtime.tensorrt_runner import TensorRTRunner
engine, given, got = json.loads(sys.argv[1])
with TensorRTRunner(engine, lanes=1) as runner:
    np.save(got, runner.infer({"x": np.load(given)})["y"])
"""


def on_tensorrt(flavor, model, x, folder):
    """What an FP32 engine of the very graph answers, built and run under the flavor's own Python."""
    onnx.save(model, folder / "net.onnx")
    engine = folder / "net.engine"
    request = {
        "flavor": flavor.name,
        "onnx": str(folder / "net.onnx"),
        "plan": str(engine),
        "precision": "fp32",
        "profile": {"batch": [1, 1, 1]},
        "targets": [],
        "options": {},
        "timing_cache": None,
        "plugins": [],
        "layer_types": {},
        "verbose": False,
    }
    run_child(flavor.python, "engines.child", request, lambda phase, fraction: None)
    gpu = find_gpus()[0]
    key = EngineKey(
        checkpoint="packed-attention",
        onnx_sha256="0" * 64,
        weights_sha256="0" * 64,
        precision="fp32",
        attention="decomposed",
        flavor=flavor.name,
        flavor_version=flavor.version,
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
    )
    plan = engine.read_bytes()
    gate = Gate("pending", "psnr", 60.0, "float64 in numpy")
    build = Build(0.0, 0, "2026-11-25", "pytest -m gpu tests/engines/test_packed_attention.py")
    write_manifest(engine, Manifest(engine.name, hashlib.sha256(plan).hexdigest(), len(plan), key, gate, build))
    np.save(folder / "x.npy", x)
    files = json.dumps([str(engine), str(folder / "x.npy"), str(folder / "y.npy")])
    child = subprocess.run([flavor.python, "-c", RUN, files], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert child.returncode == 0, child.stderr
    return np.load(folder / "y.npy")


@pytest.mark.gpu
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tensorrt_8_6_computes_the_split_form_rightly(tensorrt_8_6, size, tmp_path, capsys):
    x, expected = inputs(*size), answer(inputs(*size), weights(*size[1:]), size[1])
    scores = {}
    for form in FORMS:
        (tmp_path / form).mkdir()
        got = on_tensorrt(tensorrt_8_6, packed_attention(form, *size), x, tmp_path / form)
        scores[form] = decibels(got, expected)
    with capsys.disabled():
        print(f"\nTensorRT {tensorrt_8_6.version}, tokens, heads and head size {size}: {scores} dB", end=" ")
    assert scores["split"] >= 60
