"""The body of a fused node computes what the problem says, and the node says its problem in full."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from engines.fused_body import calling, fused_body, input_names
from engines.fused_node import attributes_of, main_inputs, problem_of
from engines.kernels.problem import AttentionProblem
from tests.engines.stand_ins import StandInPlanner
from tests.export.micro import run_onnx

H, D, N, S, B = 3, 32, 5, 7, 2
PLAIN = AttentionProblem("fp16", H, D, N, N, 0.25)
PROBLEMS = {
    "packed": PLAIN,
    "everything": replace(PLAIN, qk_norm=1e-2, rope=True, precision="bf16"),
    "tokens": replace(PLAIN, layout="tokens", keys=S),
    "tokens and norm": replace(PLAIN, layout="tokens", keys=S, qk_norm=1e-5),
    "heads": replace(PLAIN, layout="heads", keys=S, output="heads"),
    "heads and RoPE": replace(PLAIN, layout="heads", rope=True, output="heads"),
}


def inputs_of(problem, rng):
    width = H * D
    shapes = {
        "packed": [(B, N, 3 * width)],
        "tokens": [(B, N, width), *[(B, problem.keys, width)] * 2],
        "heads": [(B, H, N, D), *[(B, H, problem.keys, D)] * 2],
    }[problem.layout]
    shapes += [(D,)] * 2 if problem.qk_norm is not None else []
    shapes += [(problem.keys, D // 2)] * 2 if problem.rope else []
    return [rng.standard_normal(shape).astype(np.float16).astype(np.float32) for shape in shapes]


def reference(problem, inputs):
    """The same in FP64 numpy, written from the problem's docstring."""
    main, extras = (
        inputs[: main_inputs(problem)],
        [array.astype(np.float64) for array in inputs[main_inputs(problem) :]],
    )
    if problem.layout == "packed":
        main = np.split(main[0], 3, axis=-1)
    if problem.layout != "heads":
        main = [part.reshape(B, -1, H, D).swapaxes(1, 2) for part in main]
    query, key, value = (part.astype(np.float64) for part in main)
    if problem.qk_norm is not None:
        query, key = (
            x / np.sqrt((x**2).mean(-1, keepdims=True) + problem.qk_norm) * gain
            for x, gain in zip((query, key), extras, strict=False)
        )
        extras = extras[2:]
    if problem.rope:
        angles = extras[0] + 1j * extras[1]
        turned = [(x[..., : D // 2] + 1j * x[..., D // 2 :]) * angles for x in (query, key)]
        query, key = (np.concatenate([x.real, x.imag], -1) for x in turned)
    weights = np.exp(problem.scale * query @ key.swapaxes(-1, -2))
    answer = weights / weights.sum(-1, keepdims=True) @ value
    return answer if problem.output == "heads" else answer.swapaxes(1, 2).reshape(B, N, H * D)


@pytest.mark.parametrize("opset", [17, 23])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_body_computes_the_problem(name, opset, tmp_path):
    problem = PROBLEMS[name]
    inputs = inputs_of(problem, np.random.default_rng(1))
    feed = dict(zip(input_names(problem), inputs, strict=True))
    model = calling(fused_body(problem, "Fused", opset), {name: array.ndim for name, array in feed.items()}, opset)
    ir.save(model, tmp_path / "body.onnx")
    got = run_onnx(tmp_path / "body.onnx", feed)["output"]
    expected = reference(problem, inputs)
    assert got.shape == expected.shape
    rounding = {"fp16": 2.0**-11, "bf16": 2.0**-8}[problem.precision]
    # Rounded logits of size s move the weights by s times that.
    assert np.abs(got - expected).max() <= 32 * rounding * np.abs(expected).max()


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_node_says_its_problem(name):
    problem = replace(PROBLEMS[name], batch=(1, 2, 4), scale=float(np.float32(0.1)))
    if problem.qk_norm is not None:
        problem = replace(problem, qk_norm=float(np.float32(problem.qk_norm)))
    attributes = attributes_of(problem, StandInPlanner()(problem), "cat2dog")
    node = ir.Node("cat2dog", "FusedAttention", [], attributes, num_outputs=1)
    stored = ir.serde.deserialize_node(ir.serde.serialize_node(node))
    assert problem_of(stored) == problem
