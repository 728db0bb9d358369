"""Linear layers lowered to fused nodes: what is folded, what is not and why; no answer changes but for rounding."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from engines.batch import BatchProfile
from engines.fused_linear_node import linear_problem_of
from engines.fused_node import problem_of
from engines.lowering import lower, widen
from engines.proxy import proxy_gate
from engines.validation import Validation
from export.export import export
from runtime.judge import scores
from tests.engines.linear_stand_ins import LinearStandIn
from tests.engines.pixels_stand_ins import PixelsStandIn
from tests.engines.stand_ins import StandInPlanner
from tests.export.micro import run_onnx

BATCH = BatchProfile(1, 2, 4)
CONFIGS = {
    "gelu": {},
    "swiglu": {"norm": "rmsnorm", "mlp": "swiglu", "bias": False},
    "position": {"rope": False, "qk_norm": False},
}
BLOCK = {
    "gelu": (
        "bias, statistics",
        "layer norm, bias, QK-norm, RoPE",
        "bias, residual, statistics",
        "layer norm, bias, gelu",
        "bias, residual, statistics",
        "layer norm, bias",
    ),
    "swiglu": (
        "statistics",
        "rms norm, QK-norm, RoPE",
        "residual, statistics",
        "rms norm, swiglu",
        "residual, statistics",
        "rms norm",
    ),
    "position": (
        "bias, residual, statistics",
        "layer norm, bias",
        "bias, residual, statistics",
        "layer norm, bias, gelu",
        "bias, residual, statistics",
        "layer norm, bias",
    ),
}


@lru_cache(maxsize=1)
def folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="cat2dog-linear-")


@lru_cache(maxsize=8)
def recipe_of(name):
    from cat2dog.config import Config
    from cat2dog.initialise import initialise
    from cat2dog.recipe import Cat2DogRecipe

    root = Path(folder().name) / name
    config = Config(resolution=32, patch=8, width=64, depth=1, heads=2, **CONFIGS[name])
    initialise(config, 0, root / "models" / name)
    return Cat2DogRecipe(root / "models" / name, root / "reference")


@lru_cache(maxsize=8)
def exported(name, precision="fp16"):
    return export(recipe_of(name), Path(folder().name) / name / f"{name}_{precision}.onnx", precision).path


@lru_cache(maxsize=8)
def lowered_of(name, precision="fp16"):
    planner = LinearStandIn()
    planners = (StandInPlanner(), "decomposed", planner, None, PixelsStandIn())
    return lower(exported(name, precision), "plugin", BATCH, *planners), planner


def answer(path, feed):
    wide = path.with_name(f"wide_{path.name}")
    widen(path, wide)
    try:
        return run_onnx(wide, feed)
    finally:
        wide.unlink()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_whole_block_of_cat2dog(name):
    lowered, planner = lowered_of(name)
    assert [node.why for node in lowered.linear] == [f"the only one; folded: {words}" for words in BLOCK[name]]
    assert {(node.form, node.variant, node.milliseconds) for node in lowered.linear} == {
        ("plugin", "stand-in 64x64", 0.25)
    }
    model = ir.load(lowered.path)
    kinds = [node.op_type for node in model.graph if node.domain == "cat2dog"]
    linear = ["FusedLinear", "FusedLinear", "FusedAttention", *["FusedLinear"] * 4]
    assert kinds == ["FusedPixels", *linear, "FusedPixels"]
    left = [node.op_type for node in model.graph if node.domain == ""]
    assert left == ["Cast", "Cast"], "of the image's pixels, and of the dog's"
    asked = [linear_problem_of(node) for node in model.graph if node.op_type == "FusedLinear"]
    assert set(asked) <= set(planner.asked)
    assert {problem.batch for problem in asked} == {(1, 2, 4)} and {problem.rows for problem in asked} == {16}


@pytest.mark.parametrize(
    ("name", "precision", "least"), [*((name, "fp16", 45) for name in CONFIGS), ("gelu", "bf16", 38)]
)
def test_no_answer_changes_but_for_rounding(name, precision, least):
    lowered, _ = lowered_of(name, precision)
    recipe = recipe_of(name)
    feed = recipe.validation(2)
    expected = recipe.reference(feed)
    got = answer(lowered.path, feed)
    plain = answer(lower(exported(name, precision), "decomposed", BATCH).path, feed)
    assert min(scores("psnr", got, expected)) >= least
    assert np.abs(got["dog"].astype(int) - plain["dog"].astype(int)).max() <= (2 if precision == "fp16" else 12)


def test_bf16_keeps_its_stream_in_fp32():
    """The residual stream of BF16 is FP32, so neither it nor the norms of it are folded; the rest is."""
    lowered, _ = lowered_of("gelu", "bf16")
    why = "not folded: layer norm (what it is of is not in the layer's precision)"
    assert [node.why.removeprefix("the only one; ") for node in lowered.linear] == [
        "folded: bias, statistics",
        "folded: layer norm, bias, QK-norm, RoPE",
        "folded: bias",
        f"folded: bias, gelu; {why}",
        "folded: bias",
        f"folded: bias; {why}",
    ]


def test_qk_norm_and_rope_move_out_of_attention():
    lowered, _ = lowered_of("gelu")
    (attention,) = lowered.nodes
    assert attention.why == "the only one; QK-norm and RoPE are in the linear layer before"
    model = ir.load(lowered.path)
    (node,) = [node for node in model.graph if node.op_type == "FusedAttention"]
    assert (problem_of(node).qk_norm, problem_of(node).rope, len(node.inputs)) == (None, False, 1)
    before = node.inputs[0].producer()
    turning = linear_problem_of(before).turning
    assert (turning.heads, turning.head_size, turning.rope) == (2, 32, True)
    assert [value.name.split("_")[0] for value in before.inputs[5:]] == [
        "cat2dog.gain",
        "cat2dog.gain",
        "cat2dog.cos",
        "cat2dog.sin",
    ]


def test_the_statistics_have_the_shape_that_the_plan_says():
    model = ir.load(lowered_of("gelu")[0].path)
    nodes = [node for node in model.graph if node.op_type == "FusedLinear"]
    producers = [node for node in nodes if linear_problem_of(node).statistics]
    for node in producers:
        left = node.outputs[1]
        assert (left.dtype, [str(size) for size in left.shape][1:]) == (ir.DataType.FLOAT, ["16", "4", "2"])
        readers = [use.node for use in left.uses()]
        assert readers and all(reader.inputs[2] is left for reader in readers), "statistics for nobody"


def test_the_weights_are_laid_out_once_and_the_originals_are_gone():
    lowered, _ = lowered_of("gelu")
    model = onnx.load(lowered.path, load_external_data=False)
    names = {tensor.name: tensor for tensor in model.graph.initializer}
    assert not [name for name in names if name.endswith(".t.fp16")]
    matrix = names["network.blocks.0.mlp.up.weight.t.fp16.normed"]
    assert list(matrix.dims) == [256, 64]
    place = {entry.key: entry.value for entry in matrix.external_data}
    assert place["location"].startswith("gelu_fp16.laid-out_") and (lowered.path.parent / place["location"]).exists()
    assert all(value.uses() for value in ir.load(lowered.path).graph.initializers.values())
    whole = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(lowered.path).graph.initializer}
    neutral = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(exported("gelu")).graph.initializer}
    gain, offset = (neutral[f"network.blocks.0.norm2.{what}"] for what in ("weight", "bias"))
    weights = neutral["network.blocks.0.mlp.up.weight.t.fp16"].T.astype(np.float32)
    stem = "network.blocks.0.mlp.up.weight.t.fp16.normed"
    assert np.array_equal(whole[stem], (weights * gain).astype(np.float16))
    assert np.allclose(whole[f"{stem}.sums"], whole[stem].astype(np.float64).sum(1), atol=1e-6)
    bias = neutral["network.blocks.0.mlp.up.bias.fp16"].astype(np.float64) + weights @ offset.astype(np.float64)
    assert np.allclose(whole[f"{stem}.bias"], bias, atol=1e-5)


def test_gate_and_up_take_turns():
    whole = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(lowered_of("swiglu")[0].path).graph.initializer}
    neutral = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(exported("swiglu")).graph.initializer}
    gain = neutral["network.blocks.0.norm2.weight"]
    gate, up = (
        (neutral[f"network.blocks.0.mlp.{part}.weight.t.fp16"].T.astype(np.float32) * gain).astype(np.float16)
        for part in ("gate", "up")
    )
    (together,) = [array for name, array in whole.items() if "gate.weight" in name and "up.weight" in name]
    assert np.array_equal(together[::2], gate) and np.array_equal(together[1::2], up)


def test_what_the_planner_does_not_cover_is_folded_less():
    """Heads of 32 are not turned in a linear layer: QK-norm and RoPE stay in attention, everything else is folded."""
    lowered = lower(exported("gelu"), "plugin", BATCH, StandInPlanner(), "decomposed", LinearStandIn(head_sizes=True))
    assert lowered.linear[1].why == (
        "the only one; folded: layer norm, bias; not folded: QK-norm and RoPE "
        "(heads of 32 are not turned in a linear layer; of 64 and 128 they are)"
    )
    assert lowered.nodes[0].why == "the only one; folded: packed to tokens, RMSNorm, RoPE"


def test_attention_without_a_plain_kernel_keeps_its_turning():
    attention = StandInPlanner(lambda problem: "" if problem.rope else "no plain kernel")
    lowered = lower(exported("gelu"), "plugin", BATCH, attention, "decomposed", LinearStandIn())
    assert lowered.linear[1].why.endswith("not folded: QK-norm and RoPE (no plain kernel)")
    assert lowered.nodes[0].why == "the only one; folded: packed to tokens, RMSNorm, RoPE"


@pytest.mark.parametrize(
    ("refuse", "norms"),
    [
        (lambda p: "no statistics" if p.statistics else "", [0, 0, 0, 0, 0, 0]),
        (lambda p: "no gelu after a norm" if p.norm and p.activation else "", [0, 1, 0, 0, 0, 1]),
        (lambda p: "not so wide" if p.columns > 200 else "", [0, 1, 0, None, 0, 1]),
        (lambda p: "no residual" if p.residual else "", [0, 1, None, 0, None, 0]),
        (lambda p: "nothing", [None] * 6),
    ],
)
def test_a_norm_is_folded_where_all_agree(refuse, norms):
    """1: with the norm, 0: without, None: no fused node. Nobody leaves statistics that nobody reads."""
    recipe = recipe_of("gelu")
    lowered = lower(exported("gelu"), "decomposed", BATCH, None, "decomposed", LinearStandIn(refuse))
    got = [None if node.form == "tensorrt" else int("; folded: layer norm" in node.why) for node in lowered.linear]
    assert got == norms
    assert all(node.why and not node.variant for node in lowered.linear if node.form == "tensorrt")
    model = ir.load(lowered.path)
    for node in model.graph:
        if node.op_type == "FusedLinear":
            assert linear_problem_of(node).statistics == (len(node.outputs) == 2)
            assert all(output.uses() or output.is_graph_output() for output in node.outputs)
    assert ("cat2dog" in model.opset_imports) == (norms != [None] * 6)
    feed = recipe.validation(1)
    assert min(scores("psnr", answer(lowered.path, feed), recipe.reference(feed))) >= 45


def test_other_forms_of_attention_and_a_fixed_batch():
    recipe = recipe_of("gelu")
    feed = recipe.validation(2)
    lowered = lower(exported("gelu"), "native", BatchProfile(2, 2, 2), None, "native", LinearStandIn())
    assert [node.form for node in lowered.nodes] == ["native"]
    assert "QK-norm" not in lowered.linear[1].why and lowered.linear[1].form == "plugin"
    assert lowered.path.name.startswith("gelu_fp16.native_b2-2_"), "kernels differ from GPU to GPU"
    model = ir.load(lowered.path)
    assert model.opset_imports[""] == 23
    assert {linear_problem_of(node).batch for node in model.graph if node.op_type == "FusedLinear"} == {(2, 2, 2)}
    assert min(scores("psnr", answer(lowered.path, feed), recipe.reference(feed))) >= 45


def test_the_proxy_gate_runs_fused_layers():
    recipe = recipe_of("gelu")
    feed = recipe.validation(2)
    validation = Validation(feed, recipe.reference(feed), "psnr", 30.0, "PyTorch FP32 eager")
    gate = proxy_gate(lowered_of("gelu")[0].path, validation, 4, "no GPU here")
    assert gate.state == "pending" and min(gate.proxy_scores) >= 45


def test_without_a_planner_nothing_is_said_of_linear_layers():
    path = exported("gelu")
    lowered = lower(path, "decomposed", BATCH)
    assert lowered.linear == () and lowered.path.name == "gelu_fp16.decomposed_b1-4.onnx"
