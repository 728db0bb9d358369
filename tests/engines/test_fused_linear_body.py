"""The body of a fused linear node computes what the problem says, and the node says its problem in full."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from engines.fused_body import calling
from engines.fused_linear_body import linear_body, linear_inputs, statistics_of
from engines.fused_linear_node import linear_attributes, linear_problem_of, statistics_runs
from engines.kernels.linear_problem import LinearProblem, Turning
from engines.kernels.problem import Unsupported
from tests.engines.linear_stand_ins import RUN, LinearStandIn
from tests.export.micro import run_onnx

B, ROWS, INNER, COLUMNS, HEADS, SIZE = 2, 5, 32, 48, 2, 8
PLAIN = LinearProblem("fp16", ROWS, INNER, COLUMNS)
PROBLEMS = {
    "plain": replace(PLAIN, bias=False),
    "layer norm": replace(PLAIN, norm="layer", epsilon=1e-2),
    "rms norm": replace(PLAIN, norm="rms", epsilon=1e-3, bias=False),
    "gelu": replace(PLAIN, activation="gelu", precision="bf16"),
    "gelu_tanh": replace(PLAIN, activation="gelu_tanh", statistics=True),
    "swiglu": replace(PLAIN, activation="swiglu", norm="rms", epsilon=1e-5),
    "of each sample": replace(PLAIN, residual="sample", statistics=True),
    "shared": replace(PLAIN, residual="shared", activation="gelu"),
    "turning": replace(PLAIN, turning=Turning(HEADS, SIZE, 1e-2, True), norm="layer", epsilon=1e-6),
    "norm of heads": replace(PLAIN, turning=Turning(HEADS, SIZE, 1e-5), bias=False, precision="bf16"),
    "rope": replace(PLAIN, turning=Turning(HEADS, SIZE, None, True)),
}


def inputs_of(problem, rng):
    """Random inputs by name, in FP32; W's sums are those of W, and the statistics those of x."""
    x = rng.standard_normal((B, ROWS, INNER)) * 3 + 1
    weights = rng.standard_normal((COLUMNS, INNER))
    angles = rng.uniform(0, 6, (ROWS, SIZE // 2))
    every = {
        "x": x,
        "weights": weights,
        "statistics_in": statistics_of(x, 4),
        "sums": weights.sum(1),
        "bias": rng.standard_normal(COLUMNS),
        "gain_query": rng.uniform(0.5, 2, SIZE),
        "gain_key": rng.uniform(0.5, 2, SIZE),
        "cos": np.cos(angles),
        "sin": np.sin(angles),
        "residual": rng.standard_normal((ROWS, problem.width) if problem.residual == "shared" else (B, ROWS, COLUMNS)),
    }
    return {name: every[name].astype(np.float32) for name in linear_inputs(problem)}


def reference(problem, given):
    """The same in FP64 numpy, written from the problem's docstring."""
    given = {name: array.astype(np.float64) for name, array in given.items()}
    x = given["x"]
    if problem.norm == "layer":
        x = x - x.mean(-1, keepdims=True)
    if problem.norm:
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + problem.epsilon)
    y = x @ given["weights"].T + given.get("bias", 0)
    if problem.activation == "gelu":
        y = y / 2 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
    elif problem.activation == "gelu_tanh":
        y = y / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
    elif problem.activation == "swiglu":
        gate, up = y[..., ::2], y[..., 1::2]
        y = gate / (1 + np.exp(-gate)) * up
    if problem.turning is not None:
        y = np.concatenate([*_turned(problem.turning, y, given), y[..., 2 * HEADS * SIZE :]], -1)
    return y + given.get("residual", 0)


def _turned(turning, y, given):
    for part, name in enumerate(("gain_query", "gain_key")):
        heads = y[..., part * HEADS * SIZE : (part + 1) * HEADS * SIZE].reshape(B, ROWS, HEADS, SIZE)
        if turning.qk_norm is not None:
            heads = heads / np.sqrt((heads**2).mean(-1, keepdims=True) + turning.qk_norm) * given[name]
        if turning.rope:
            angles = (given["cos"] + 1j * given["sin"])[:, None]
            turned = (heads[..., : SIZE // 2] + 1j * heads[..., SIZE // 2 :]) * angles
            heads = np.concatenate([turned.real, turned.imag], -1)
        yield heads.reshape(B, ROWS, -1)


@pytest.mark.parametrize("opset", [17, 23])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_body_computes_the_problem(name, opset, tmp_path):
    problem = PROBLEMS[name]
    given = inputs_of(problem, np.random.default_rng(1))
    body = linear_body(problem, 3, "Linear", opset)
    ir.save(calling(body, {name: array.ndim for name, array in given.items()}, opset), tmp_path / "body.onnx")
    got = run_onnx(tmp_path / "body.onnx", given)
    expected = reference(problem, given)
    assert got["output"].shape == expected.shape == (B, ROWS, problem.width)
    assert np.abs(got["output"] - expected).max() <= 2e-5 * np.abs(expected).max()
    assert ("statistics_out" in got) == problem.statistics
    if problem.statistics:
        left = got["statistics_out"]
        assert left.shape == (B, ROWS, 3, 2)
        cut = expected.reshape(B, ROWS, 3, -1)
        assert np.allclose(left[..., 0], cut.mean(-1), atol=1e-4)
        assert np.allclose(left[..., 1], cut.var(-1) * cut.shape[-1], rtol=1e-4)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_node_says_its_problem(name):
    problem = replace(PROBLEMS[name], batch=(1, 2, 4), epsilon=float(np.float32(PROBLEMS[name].epsilon)))
    if problem.turning is not None and problem.turning.qk_norm is not None:
        turning = replace(problem.turning, qk_norm=float(np.float32(problem.turning.qk_norm)))
        problem = replace(problem, turning=turning)
    kernel = LinearStandIn()(problem)
    attributes = linear_attributes(problem, kernel, "cat2dog")
    node = ir.Node("cat2dog", "FusedLinear", [], attributes, num_outputs=1)
    stored = ir.serde.deserialize_node(ir.serde.serialize_node(node))
    assert linear_problem_of(stored) == problem
    assert stored.attributes["plugin_namespace"].as_string() == "cat2dog"
    assert stored.attributes["launch"].as_string() == kernel.plan.text()


def test_how_many_runs_a_kernel_leaves_statistics_of():
    assert statistics_runs(LinearStandIn()(replace(PLAIN, statistics=True))) == COLUMNS // RUN
    with pytest.raises(Unsupported, match=r"^stand-in 64x64 leaves no statistics$"):
        statistics_runs(LinearStandIn()(PLAIN))
