"""Attention lowered to fused nodes: what is folded, what is not and why; no answer changes but for rounding."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from engines.batch import BatchProfile
from engines.fused_node import problem_of
from engines.lowering import lower, widen
from export.export import export
from runtime.errors import InputError
from runtime.judge import scores
from tests.engines.patterns import CASES, D, H, N, patterns_recipe
from tests.engines.stand_ins import CUBIN, StandInPlanner
from tests.export.micro import assert_close, micro_answers, micro_export, run_onnx

BATCH = BatchProfile(1, 2, 4)


class Patterns:
    """All cases exported in one precision and opset, lowered, and run lowered and not."""

    def __init__(self, folder, precision, opset):
        self.precision = precision
        recipe = patterns_recipe()
        neutral = export(recipe, folder / "patterns.onnx", precision, opset=opset).path
        self.neutral, self.planner = neutral, StandInPlanner()
        self.lowered = lower(neutral, "plugin", BATCH, self.planner)
        self.model = ir.load(self.lowered.path)
        self.feed = feed = recipe.validation()
        self.expected = recipe.reference(feed)
        self.folded = self.run(self.lowered.path, feed)
        self.unfolded = self.run(lower(neutral, "decomposed", BATCH).path, feed)

    def run(self, path, feed):
        wide = path.with_name(f"wide_{path.name}")
        widen(path, wide)
        return run_onnx(wide, feed)

    def node(self, case):
        return self.lowered.nodes[list(CASES).index(case)]


@pytest.fixture(
    scope="module",
    params=[("fp16", 17), pytest.param(("bf16", 23), marks=pytest.mark.slow)],
    ids="{0[0]}-{0[1]}".format,
)
def patterns(request, tmp_path_factory):
    return Patterns(tmp_path_factory.mktemp("patterns"), *request.param)


@pytest.mark.parametrize("case", CASES)
def test_what_becomes_of_each_pattern(patterns, case):
    expected, node = CASES[case], patterns.node(case)
    if expected.refused:
        assert (node.form, node.why, node.variant) == ("decomposed", expected.refused, "")
        return
    inside = [f"{expected.layout} to {expected.output}", *["RMSNorm"] * expected.norm, *["RoPE"] * expected.rope]
    missed = f"; not folded: {expected.missed}" if expected.missed else ""
    assert node.why == f"the only one; folded: {', '.join(inside)}{missed}"
    assert (node.form, node.variant, node.milliseconds) == ("plugin", "stand-in 64x64", 0.125)


@pytest.mark.parametrize("case", CASES)
def test_no_answer_changes_but_for_rounding(patterns, case):
    """Against FP32 the folded graph is as good as the unfolded one, and both are near each other."""
    folded, unfolded, exact = (answers[case] for answers in (patterns.folded, patterns.unfolded, patterns.expected))
    assert folded.shape == exact.shape and np.isfinite(folded).all()
    rounding = {"fp16": 2.0**-11, "bf16": 2.0**-8}[patterns.precision] * np.abs(exact).max()
    assert np.abs(folded - exact).max() <= 2 * np.abs(unfolded - exact).max() + rounding
    assert np.abs(folded - unfolded).max() <= 16 * rounding


def test_the_problems_are_what_the_graph_says(patterns):
    fused = [case for case in CASES.values() if not case.refused]
    assert len(patterns.planner.asked) == len(fused)
    for problem, case in zip(patterns.planner.asked, fused, strict=True):
        assert (problem.precision, problem.heads, problem.head_size) == (patterns.precision, H, D)
        assert (problem.layout, problem.output, problem.rope) == (case.layout, case.output, case.rope)
        assert (problem.qk_norm is not None, problem.keys) == (case.norm, case.keys)
        assert problem.queries == (N // 2 if case.batch == 2 else N)
        assert problem.scale == pytest.approx(case.scale)
        assert problem.batch == tuple(case.batch * size for size in (1, 2, 4))
    nodes = [node for node in patterns.model.graph if node.op_type == "FusedAttention"]
    assert [problem_of(node) for node in nodes] == patterns.planner.asked


def test_a_fixed_batch(patterns):
    planner = StandInPlanner()
    lowered = lower(patterns.neutral, "plugin", BatchProfile(3, 3, 3), planner)
    assert [node.why for node in lowered.nodes] == [node.why for node in patterns.lowered.nodes]
    assert {problem.batch for problem in planner.asked} == {(3, 3, 3), (6, 6, 6)}
    rounding = {"fp16": 2.0**-11, "bf16": 2.0**-8}[patterns.precision]
    assert_close(patterns.run(lowered.path, patterns.feed), patterns.folded, 16 * rounding)


def test_nothing_that_was_folded_is_left(patterns):
    """What stands between a projection and the fused node is gone, and so are its constants."""
    graph = patterns.model.graph
    names = {node.name: node for node in graph}
    packed = [node for node in graph if node.op_type == "FusedAttention" and problem_of(node).layout == "packed"]
    assert packed and all(node.inputs[0].producer().op_type in ("Add", "Reshape") for node in packed)
    unread = [name for name, value in graph.initializers.items() if not value.uses()]
    assert unread == [] and len(names) == len(list(graph))
    tables = [name for name in graph.initializers if name.startswith(("cat2dog.cos", "cat2dog.sin"))]
    assert len(tables) == 2, "one initializer for one content, whichever nodes read it"
    assert all(graph.initializers[name].dtype == ir.DataType.FLOAT for name in tables)


def test_the_file_for_tensorrt(patterns):
    """No local functions; the kernels as attributes of types that TensorRT's parsers take; types and shapes known."""
    model = onnx.load(patterns.lowered.path, load_external_data=False)
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {"", "cat2dog"}
    assert {entry.domain: entry.version for entry in model.opset_import}["cat2dog"] == 1
    known = {value.name: value.type.tensor_type for value in [*model.graph.value_info, *model.graph.output]}
    for node in (node for node in model.graph.node if node.domain == "cat2dog"):
        given = {attribute.name: attribute for attribute in node.attribute}
        assert (node.op_type, given["plugin_version"].s, given["plugin_namespace"].s) == (
            *("FusedAttention", b"1", b"cat2dog"),
        )
        assert (
            given["launch"].s.startswith(b"cat2dog-launch 1\ntarget 90 family\n") and given["launch"].s[-4:] == b"end\n"
        )
        assert given["images"].t.data_type == onnx.TensorProto.INT8 and given["images"].t.raw_data == CUBIN
        assert (given["heads"].i, given["head_size"].i, given["variant"].s) == (H, D, b"stand-in 64x64")
        assert known[node.output[0]].elem_type and known[node.output[0]].HasField("shape")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("batch", ["1-4", "2"])
def test_cat2dog(precision, batch, tmp_path):
    feed, expected = micro_answers()
    lowered = lower(micro_export(precision).path, "plugin", BatchProfile.parse(batch), StandInPlanner())
    assert lowered.form == "plugin" and {node.why for node in lowered.nodes} == {
        "the only one; folded: packed to tokens, RMSNorm, RoPE"
    }
    graph = onnx.load(lowered.path, load_external_data=False).graph
    assert not [node for node in graph.node if node.op_type in ("Split", "Concat", "Neg", "Sqrt")]
    wide = lowered.path.with_name(f"wide_{precision}_{batch}.onnx")
    widen(lowered.path, wide)
    got = run_onnx(wide, {"image": feed["image"][:2]})
    assert min(scores("psnr", got, {"dog": expected["dog"][:2]})) >= {"fp16": 45, "bf16": 40}[precision]
    wide.unlink()


def test_other_kernels_make_another_file():
    path, batch = micro_export("fp16").path, BatchProfile.parse("1-4")
    one, same = (lower(path, "plugin", batch, StandInPlanner()).path.name for _ in range(2))
    other = lower(path, "plugin", BatchProfile.parse("1-4"), StandInPlanner(lambda problem: "none")).path.name
    assert one == same != other and one.startswith("micro-64_fp16.plugin_b1-4_")


@pytest.mark.parametrize("fallback", ["native", "decomposed"])
def test_what_the_planner_does_not_cover_takes_the_fallback(fallback):
    planner = StandInPlanner(lambda problem: f"no kernel for batch {problem.batch}")
    feed, expected = micro_answers()
    lowered = lower(micro_export("fp16").path, "plugin", BATCH, planner, fallback)
    assert {(node.form, node.why) for node in lowered.nodes} == {(fallback, "no kernel for batch (1, 2, 4)")}
    model = onnx.load(lowered.path, load_external_data=False)
    assert {node.domain for node in model.graph.node} == {""}
    assert min(scores("psnr", run_onnx(lowered.path, feed), expected)) >= 45


def test_some_fused_and_some_native():
    planner = StandInPlanner(lambda problem: "" if len(planner.asked) == 1 else "only one kernel")
    feed, expected = micro_answers()
    lowered = lower(micro_export("fp16").path, "plugin", BATCH, planner, "native")
    assert [node.form for node in lowered.nodes] == ["plugin", "native"]
    wide = lowered.path.with_name("mixed.onnx")
    widen(lowered.path, wide)
    assert min(scores("psnr", run_onnx(wide, feed), expected)) >= 45
    wide.unlink()


def test_fp32_is_not_fused():
    lowered = lower(micro_export("fp32").path, "plugin", BATCH, StandInPlanner())
    assert {(node.form, node.why) for node in lowered.nodes} == {
        ("decomposed", "attention that is not of FP16 or BF16 has no fused kernel")
    }


def test_without_a_planner_there_is_no_plugin_form():
    with pytest.raises(
        InputError, match=r"^attention form 'plugin' needs kernels; there is no planner to take them from$"
    ):
        lower(micro_export("fp16").path, "plugin", BATCH)
