"""The body of a fused pixels node computes what the problem says, its attributes say it in full, no answer changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from cat2dog.config import load_config
from cli.tune_pixels import compile_pixels
from engines.batch import BatchProfile
from engines.fused_body import calling
from engines.fused_pixels_body import pixels_body
from engines.fused_pixels_node import pixels_attributes, pixels_problem_of
from engines.kernels import pixels_plan
from engines.lowering import lower
from tests.engines.kernels.pixels_cases import PROBLEMS, feed_of, reference
from tests.engines.linear_stand_ins import LinearStandIn
from tests.engines.pixels_stand_ins import PixelsStandIn
from tests.engines.stand_ins import StandInPlanner
from tests.engines.test_fused_linear import BATCH, answer, exported, recipe_of
from tests.export.micro import run_onnx


@pytest.mark.parametrize("opset", [17, 23])
@pytest.mark.parametrize("name", [name for name in PROBLEMS if "256" not in name])
def test_the_body_computes_the_problem(name, opset, tmp_path):
    problem = PROBLEMS[name]
    feed = feed_of(problem, 2)
    model = calling(pixels_body(problem, "Pixels", opset), {"input": feed.ndim}, opset)
    ir.save(model, tmp_path / "body.onnx")
    got = run_onnx(tmp_path / "body.onnx", {"input": feed.astype(np.float32)})["output"]
    assert np.array_equal(got, reference(problem, feed).astype(np.float32))


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_node_says_its_problem(name):
    problem = PROBLEMS[name]
    kernel = PixelsStandIn()(problem)
    node = ir.Node("cat2dog", "FusedPixels", [], pixels_attributes(problem, kernel, "cat2dog"), num_outputs=1)
    stored = ir.serde.deserialize_node(ir.serde.serialize_node(node))
    assert pixels_problem_of(stored) == problem
    assert stored.attributes["launch"].as_string() == kernel.plan.text()


@pytest.mark.parametrize("precision", ["fp16", pytest.param("bf16", marks=pytest.mark.slow)])
def test_no_answer_of_a_network_changes(precision):
    def lowered(pixels):
        planners = (StandInPlanner(), "decomposed", LinearStandIn(), None, pixels)
        return lower(exported("gelu", precision), "plugin", BATCH, *planners)

    feed = recipe_of("gelu").validation(2)
    plain = lowered(None)
    expected = answer(plain.path, feed)["dog"]
    fused = lowered(PixelsStandIn())
    assert [(node.node, node.form) for node in fused.pixels] == [("image", "plugin"), ("dog", "plugin")]
    assert plain.pixels == () and plain.path != fused.path and plain.linear == fused.linear
    assert np.array_equal(answer(fused.path, feed)["dog"], expected)
    assert len(np.unique(expected)) > 100


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_compiling_for_other_machines_compiles_what_lowering_asks_for(precision, monkeypatch):
    asked, compiled = PixelsStandIn(), []
    monkeypatch.setattr(pixels_plan, "pixels_plan", lambda problem, target: compiled.append((problem, target)))
    planners = (StandInPlanner(), "decomposed", LinearStandIn(), None, asked)
    lower(exported("gelu", precision), "plugin", BatchProfile(1, 1, 1), *planners)
    config = load_config(Path(recipe_of("gelu").folder))
    assert compile_pixels([config, config], [precision], "9.0") == 2
    assert compiled == [(problem, "9.0") for problem in asked.asked]


def test_pixels_follow_the_linear_layers():
    """Without a kernel of ours for any of them, an engine needs no plugin for its pixels either."""
    planner = PixelsStandIn()
    linear = LinearStandIn(lambda problem: "none")
    assert lower(exported("gelu"), "decomposed", BATCH, None, "decomposed", linear, None, planner).pixels == ()
    assert lower(exported("gelu"), "decomposed", BATCH, None, "decomposed", None, None, planner).pixels == ()
    assert not planner.asked
