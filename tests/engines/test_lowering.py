"""Lowered graphs compute what the neutral file computes, in both forms, every precision and batch."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from engines.batch import BatchProfile
from engines.bf16 import has_bf16
from engines.lowering import load, lower, lowered_path, widen
from engines.opset import raise_opset
from export.export import export
from export.recipe import ModuleRecipe
from runtime.errors import InputError, ToolchainError
from runtime.judge import scores
from runtime.runner import TensorSpec
from tests.export.micro import assert_close, micro_answers, micro_export, run_onnx

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def every(request, tmp_path_factory):
    """All kinds of attention in one file, with head size 16 and, for one value, 24."""
    recipe = importlib.import_module("tests.export.test_export_attention").every_recipe()
    path = export(recipe, tmp_path_factory.mktemp("every") / "every.onnx", request.param).path
    feed = recipe.validation()
    return path, feed, run_onnx(path, feed), 1e-6 if request.param == "fp32" else 2e-3


def _without_blind_rows(answers):
    """The first row of that mask sees nothing: ONNX leaves open what comes of it."""
    return {**answers, "filled_mask": answers["filled_mask"][:, :, 1:]}


@pytest.mark.parametrize("form", ["native", "decomposed"])
@pytest.mark.parametrize("batch", ["1-4", "3"])
def test_every_kind_of_attention_is_equal_to_the_neutral_file(every, form, batch):
    path, feed, expected, tolerance = every
    lowered = lower(path, form, BatchProfile.parse(batch))
    model = onnx.load(lowered.path, load_external_data=False)
    assert not model.functions and {node.domain for node in model.graph.node} == {""}
    got = run_onnx(lowered.path, feed)
    assert all(np.isfinite(answer).all() for answer in got.values())
    assert_close(_without_blind_rows(got), _without_blind_rows(expected), tolerance)
    odd = [node for node in lowered.nodes if node.why != "as asked"]
    if form == "native":
        assert [(node.form, node.why) for node in odd] == [
            ("decomposed", "head sizes of queries and values differ (16 and 24)")
        ]
        kinds = [node.op_type for node in model.graph.node if node.op_type == "Attention"]
        assert len(kinds) == len(lowered.nodes) - 1
    else:
        assert odd == [] and lowered.form == "decomposed"
        onnx.checker.check_model(str(lowered.path), full_check=True)


@pytest.mark.parametrize("form", ["native", "decomposed"])
@pytest.mark.parametrize("batch", ["1-4", "2"])
def test_cat2dog_in_fp16(form, batch):
    feed, expected = micro_answers()
    lowered = lower(micro_export("fp16").path, form, BatchProfile.parse(batch))
    assert lowered.path.name == f"micro-64_fp16.{form}_b{'1-4' if batch == '1-4' else '2-2'}.onnx"
    got = run_onnx(lowered.path, {"image": feed["image"][:2]})
    assert min(scores("psnr", got, {"dog": expected["dog"][:2]})) >= 45
    model = onnx.load(lowered.path, load_external_data=False)
    assert model.opset_import[0].version == (23 if form == "native" else 17)
    sizes = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes == [2 if batch == "2" else "batch", 64, 64, 3]
    data = [entry.value for t in model.graph.initializer for entry in t.external_data if entry.key == "location"]
    assert set(data) == {"micro-64_fp16.onnx.data"}, "the weights are shared, not copied"


def test_widening_has_the_errors_of_bf16(tmp_path):
    """ONNX Runtime's CPU runs no BF16; the widened graph runs, and is worse than FP16 and better than nothing."""
    feed, expected = micro_answers()
    lowered = lower(micro_export("bf16").path, "decomposed", BatchProfile.parse("1-4"))
    wide = lowered.path.with_name("wide.onnx")
    widen(lowered.path, wide)
    assert has_bf16(load(lowered.path))
    brain, half = (min(scores("psnr", run_onnx(p, feed), expected)) for p in (wide, micro_export("fp16").path))
    assert 40 < brain < half - 5
    wide.unlink()


def head_of(size: int, tmp_path: Path, precision: str = "fp32"):
    import torch

    class Heads(torch.nn.Module):
        def forward(self, q):
            return torch.nn.functional.scaled_dot_product_attention(q, q, q)

    spec = TensorSpec("q", "float32", (-1, 2, 5, size))
    recipe = ModuleRecipe("heads", Heads, [spec], [TensorSpec("y", "float32", spec.shape)])
    return export(recipe, tmp_path / "heads.onnx", precision).path


@pytest.mark.parametrize(
    ("size", "precision", "why"),
    [
        (12, "fp32", "head size 12 is outside 16..256"),
        (264, "fp16", "head size 264 is outside 16..256"),
        (20, "fp16", "head size 20 is not a multiple of 8"),
        (20, "fp32", "as asked"),
    ],
)
def test_obstacles_to_the_native_form_are_told(size, precision, why, tmp_path):
    (node,) = lower(head_of(size, tmp_path, precision), "native", BatchProfile.parse("1-4")).nodes
    assert (node.form, node.why) == ("native" if why == "as asked" else "decomposed", why)


def test_errors_are_one_line(tmp_path):
    with pytest.raises(InputError, match=r"^attention form 'plug' is not one of plugin, native, decomposed$"):
        lower(micro_export("fp16").path, "plug", BatchProfile.parse("1"))
    with pytest.raises(InputError, match=r"^there is no ONNX file .*absent\.onnx: `cat2dog export` writes it$"):
        lower(tmp_path / "absent.onnx", "native", BatchProfile.parse("1"))
    assert lowered_path(Path("a/m.onnx"), "native", BatchProfile.parse("1-8")) == Path("a/m.native_b1-8.onnx")


def test_a_graph_without_names_for_its_batch(tmp_path):
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 3])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, None])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "m.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    lowered = lower(path, "decomposed", BatchProfile.parse("4"))
    assert lowered.form == "none"
    shape = onnx.load(lowered.path).graph.input[0].type.tensor_type.shape
    assert [size.dim_value for size in shape.dim] == [4, 3]
    assert run_onnx(lowered.path, {"x": np.ones((4, 3), np.float32)})["y"].shape == (4, 3)


def test_raising_the_opset_keeps_reductions_and_splits(tmp_path):
    nodes = [
        onnx.helper.make_node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=1),
        onnx.helper.make_node("Split", ["x"], ["a", "b"], axis=1),
        onnx.helper.make_node("Concat", ["b", "m", "a"], ["y"], axis=1),
    ]
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 5])
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", [x], [y]), opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(proto, tmp_path / "17.onnx")
    model = ir.load(tmp_path / "17.onnx")
    raise_opset(model, 23)
    ir.save(model, tmp_path / "23.onnx")
    onnx.checker.check_model(str(tmp_path / "23.onnx"), full_check=True)
    feed = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}
    assert np.array_equal(run_onnx(tmp_path / "17.onnx", feed)["y"], run_onnx(tmp_path / "23.onnx", feed)["y"])
    model.opset_imports[""] = 16
    with pytest.raises(
        ToolchainError, match=r"^a graph of opset 16 cannot be brought to 23; export it with --opset 17"
    ):
        raise_opset(model, 23)


BLOCK = "import sys; [sys.modules.__setitem__(name, None) for name in {blocked!r}]; import {modules}"


@pytest.mark.parametrize(
    ("blocked", "modules"),
    [
        (
            ["torch"],
            "engines.build, engines.lowering, engines.proxy, runtime.tensorrt_runner",
        ),
        (
            ["torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "ml_dtypes", "filelock", "PIL", "rich"],
            "engines.child, engines.gate_child, engines.validation, engines.configure",
        ),
    ],
    ids=["build without torch", "children with numpy only"],
)
def test_what_rooms_need_to_be_imported(blocked, modules):
    program = BLOCK.format(blocked=blocked, modules=modules)
    child = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr


def test_lowering_needs_no_torch():
    path = micro_export("fp16").path
    program = BLOCK.format(blocked=["torch"], modules="engines.lowering") + (
        f"; from engines.batch import BatchProfile as B; engines.lowering.lower({str(path)!r}, 'native', B(1, 1, 3))"
    )
    child = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, env={**os.environ}
    )
    assert child.returncode == 0, child.stderr
    assert lowered_path(path, "native", BatchProfile(1, 1, 3)).exists()
