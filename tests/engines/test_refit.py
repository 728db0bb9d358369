"""Weights of an ONNX file for an engine that takes new ones, and builds of such engines."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines import refit as refit_module
from engines.build import BuildRequest, engine_key
from engines.refit import refit_engine, structure_sha256, weights_of
from runtime.errors import InputError
from runtime.flavors import TENSORRT, TENSORRT_RTX, Flavor
from runtime.gpu import Gpu


def graph(path, value=1.0, op="Add", axes=(1,), kind=np.float16):
    """x + w, and a mean over `axes`."""
    tensor = {np.float16: TensorProto.FLOAT16, np.float32: TensorProto.FLOAT}[kind]
    nodes = [
        helper.make_node(op, ["x", "w"], ["y"], name="layer"),
        helper.make_node("ReduceSum", ["y", "axes"], ["z"], keepdims=1),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", tensor, ["batch", 4])],
            [helper.make_tensor_value_info("z", tensor, None)],
            [
                numpy_helper.from_array(np.full(4, value, kind), "w"),
                numpy_helper.from_array(np.array(axes, np.int64), "axes"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    onnx.save(model, path)
    return path


def test_the_structure_is_all_but_the_weights(tmp_path):
    base = structure_sha256(graph(tmp_path / "a.onnx"))
    assert base == structure_sha256(graph(tmp_path / "b.onnx", value=0.0))
    others = [
        structure_sha256(graph(tmp_path / f"{i}.onnx", **changed))
        for i, changed in enumerate(({"op": "Mul"}, {"axes": (0,)}, {"kind": np.float32}))
    ]
    assert len({base, *others}) == 4


def test_weights_are_the_floating_point_initializers(tmp_path):
    weights = weights_of(graph(tmp_path / "a.onnx", value=2.5))
    assert list(weights) == ["w"] and weights["w"].dtype == np.float16 and (weights["w"] == 2.5).all()


def test_an_engine_takes_weights_of_its_own_graph_only(tmp_path, monkeypatch):
    options = {"refit": structure_sha256(graph(tmp_path / "a.onnx"))}
    manifest = SimpleNamespace(key=SimpleNamespace(options=options))
    monkeypatch.setattr(refit_module, "engine_manifest", lambda path: manifest)
    runner = SimpleNamespace(refit=lambda weights: float(weights["w"][0]))
    assert refit_engine(runner, "x.engine", graph(tmp_path / "b.onnx", value=7.0)) == 7.0
    with pytest.raises(InputError, match="is of another graph"):
        refit_engine(runner, "x.engine", graph(tmp_path / "c.onnx", op="Mul"))
    options.clear()
    with pytest.raises(InputError, match="takes no new weights: build it with --refit"):
        refit_engine(runner, "x.engine", tmp_path / "b.onnx")


RTX = Flavor(TENSORRT_RTX, "1.7.1.116", "python", can_build=True, can_run=False)
T86 = Flavor(TENSORRT, "8.6.0", "python", can_build=True, can_run=True)


def test_the_key_says_that_an_engine_takes_new_weights_and_such_have_no_kernels_of_ours(tmp_path, monkeypatch):
    from engines import build

    monkeypatch.setattr(build, "find_gpus", lambda: [Gpu(0, "NVIDIA H200", "9.0", 1 << 30, "13.0")])
    path = graph(tmp_path / "a.onnx")
    request = BuildRequest(path, "a", "fp16", None, linear="auto", refit=True, root=tmp_path / "engines")
    key = engine_key(request, T86)
    assert key.options["refit"] == structure_sha256(path)
    assert (key.attention, key.options.get("linear"), key.kernels) == ("decomposed", None, ())
    assert (
        "refit" not in engine_key(replace(request, refit=False, linear="tensorrt", attention="decomposed"), T86).options
    )
    for form in ({"attention": "plugin"}, {"linear": "plugin"}):
        with pytest.raises(InputError, match="kernels of ours takes no new weights"):
            engine_key(replace(request, **form), T86)
    with pytest.raises(InputError, match="only on the GPU that runs them"):
        engine_key(replace(request, flavor=RTX), RTX)
