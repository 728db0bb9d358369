"""The definition of attention that kernels are measured against, against a plain one over whole tensors."""

from __future__ import annotations

import itertools
import math

import ml_dtypes
import numpy as np
import pytest

from engines.kernels.measure import NUMPY, Measured, _random, reference_row
from engines.kernels.plan import make_plan
from engines.kernels.problem import AttentionProblem
from engines.kernels.sizes import evaluate
from engines.kernels.tune import TOLERANCE
from engines.kernels.variants import TritonVariant

BATCH, HEADS, SIZE = 2, 3, 32


def problem_of(layout, norm, rope, precision="fp16"):
    keys = 11 if layout == "packed" or rope else 7
    output = "heads" if layout == "heads" else "tokens"
    return AttentionProblem(
        precision, HEADS, SIZE, 11, keys, 0.3, (1, 1, BATCH), layout, output, 1e-3 if norm else None, rope
    )


def feed_of(problem):
    """Q, K, V `[B, H, N, D]`, gains, tables, and the same as a node's inputs."""
    rng = np.random.default_rng(5)
    p = problem
    q, k, v = (
        rng.standard_normal((BATCH, HEADS, n, SIZE)).astype(NUMPY[p.precision]) for n in (p.queries, p.keys, p.keys)
    )
    together = [x.transpose(0, 2, 1, 3).reshape(BATCH, -1, HEADS * SIZE) for x in (q, k, v)]
    tensors = {"tokens": together, "heads": [q, k, v]}.get(p.layout) or [np.concatenate(together, 2)]
    gains = [rng.uniform(0.5, 1.5, SIZE).astype(np.float32) for _ in range(2)] if p.qk_norm is not None else []
    angles = rng.uniform(0, 6, (p.keys, SIZE // 2))
    tables = [np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)] if p.rope else []
    return (q, k, v), gains, tables, [*tensors, *gains, *tables]


def attention(problem, qkv, gains, tables):
    """`[B, H, N, D]`, one number at a time where that is plainest."""
    p = problem
    q, k, v = (x.astype(np.float64) for x in qkv)
    for which, x in enumerate((q, k)):
        if p.qk_norm is not None:
            for place in np.ndindex(x.shape[:3]):
                x[place] = x[place] / math.sqrt((x[place] ** 2).sum() / SIZE + p.qk_norm) * gains[which]
        if p.rope:
            for place in np.ndindex(x.shape[:3]):
                row = x[place].copy()
                for i in range(SIZE // 2):
                    c, s = float(tables[0][place[2], i]), float(tables[1][place[2], i])
                    turned = complex(row[i], row[i + SIZE // 2]) * complex(c, s)
                    x[place][i], x[place][i + SIZE // 2] = turned.real, turned.imag
    if p.qk_norm is not None or p.rope:
        q, k = (x.astype(NUMPY[p.precision]).astype(np.float64) for x in (q, k))
    weights = np.exp(np.einsum("bhqd,bhkd->bhqk", q, k) * p.scale)
    return np.einsum("bhqk,bhkd->bhqd", weights / weights.sum(-1, keepdims=True), v)


@pytest.mark.parametrize(
    ("layout", "norm", "rope"), list(itertools.product(["packed", "tokens", "heads"], [False, True], [False, True]))
)
def test_a_row_is_the_definitions(layout, norm, rope):
    for precision in ("fp16", "bf16"):
        problem = problem_of(layout, norm, rope, precision)
        qkv, gains, tables, feed = feed_of(problem)
        expected = attention(problem, qkv, gains, tables)
        for sample, head, row in np.ndindex(BATCH, HEADS, problem.queries):
            np.testing.assert_allclose(
                reference_row(problem, feed, sample, head, row), expected[sample, head, row], rtol=1e-9, atol=1e-12
            )


def test_large_logits_do_not_overflow():
    problem = AttentionProblem("fp16", 1, SIZE, 3, 3, 1e4, layout="heads", output="heads")
    feed = [np.full((1, 1, 3, SIZE), 9, np.float16) for _ in range(3)]
    assert np.array_equal(reference_row(problem, feed, 0, 0, 2), np.full(SIZE, 9.0))


def measured(problem, feed):
    """What judges answers, without the GPU that gives them."""
    made = object.__new__(Measured)
    made.problem, made.batch, made.feed = problem, BATCH, feed
    return made


@pytest.mark.parametrize("layout", ["packed", "tokens", "heads"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_right_answer_is_within_tolerance_and_a_wrong_one_is_not(layout, precision):
    problem = problem_of(layout, True, True, precision)
    qkv, gains, tables, feed = feed_of(problem)
    answer = attention(problem, qkv, gains, tables)
    if problem.output == "tokens":
        answer = answer.transpose(0, 2, 1, 3).reshape(BATCH, problem.queries, HEADS * SIZE)
    answer = answer.astype(NUMPY[precision])
    judge = measured(problem, feed)
    assert judge.error([answer]) <= TOLERANCE[precision] / 2
    for wrong in (np.roll(answer, 1, -1), answer * np.asarray(1.05, answer.dtype), np.zeros_like(answer)):
        assert judge.error([wrong]) > TOLERANCE[precision]
    # The last row is always looked at: there a kernel goes wrong first.
    answer[..., -1, :] = np.nan
    assert not judge.error([answer]) <= TOLERANCE[precision]


@pytest.mark.parametrize(
    "problem",
    [problem_of("packed", True, True), problem_of("tokens", False, True), problem_of("heads", True, True)],
    ids=lambda problem: problem.layout,
)
def test_the_random_feed_is_of_one_set_of_angles(compilers, problem):
    plan = make_plan(problem, TritonVariant(64, 64, 4, 2), "9.0")
    shapes = [[evaluate(size, {"B": BATCH}) for size in tensor.shape] for tensor in plan.inputs]
    rng = np.random.default_rng(0)
    feed = [_random(rng, t.dtype, s, i) for i, (t, s) in enumerate(zip(plan.inputs, shapes, strict=True))]
    cos, sin = feed[-2:]
    np.testing.assert_allclose(cos**2 + sin**2, 1, atol=1e-6)
    # And cosines come first: the reference reads them so.
    angles = np.random.default_rng(7).uniform(0, 6.28, cos.shape)
    np.testing.assert_allclose(cos, np.cos(angles), atol=1e-6)
    assert [array.dtype for array in feed[: -2 - 2 * (problem.qk_norm is not None)]] == [np.float16] * (
        1 if problem.layout == "packed" else 3
    )
    assert NUMPY["bf16"] == ml_dtypes.bfloat16
