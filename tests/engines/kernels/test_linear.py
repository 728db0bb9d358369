"""Fused linear layers without a GPU: what is computed, which kernels there are for it, and what their plans say."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engines.kernels.driver import bind
from engines.kernels.linear_key import LinearKey
from engines.kernels.linear_measure import random_feed, reference_rows, run_statistics
from engines.kernels.linear_plan import linear_plan
from engines.kernels.linear_problem import LinearProblem, Turning
from engines.kernels.linear_variants import LinearVariant, check_linear, estimate, fits_problem, linear_candidates
from engines.kernels.problem import Unsupported
from engines.kernels.tables import Entry, Table, Timing, read_table
from engines.kernels.variants import variant_from_json, variant_to_json

QKV = LinearProblem("fp16", 32, 128, 384, norm="layer", epsilon=1e-6, turning=Turning(2, 64, 1e-6, True))
UP = LinearProblem("bf16", 48, 64, 256, (2, 2, 2), norm="rms", epsilon=1e-6, bias=False, activation="swiglu")
DOWN = LinearProblem("fp16", 48, 256, 64, (1, 2, 4), residual="sample", statistics=True)
EMBED = LinearProblem("fp16", 48, 48, 128, residual="shared", statistics=True)
GELU = LinearProblem("fp16", 32, 128, 256, norm="layer", epsilon=1e-6, activation="gelu")
PROBLEMS = (QKV, UP, DOWN, EMBED, GELU)
PLAIN = LinearVariant(1, 1, 64, 2)
ROOT = Path(__file__).resolve().parents[3]


def test_the_reference_is_the_unfused_layer():
    feed = random_feed(QKV, 1, seed=3)
    x, w, stats, sums, bias, gain_q, gain_k, cos, sin = (array.astype(np.float64) for array in feed)
    x = x[0]
    normed = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
    y = (normed @ w.T + bias).reshape(32, 3, 2, 64)
    for part, gain in enumerate((gain_q, gain_k)):
        h = y[:, part] / np.sqrt(np.square(y[:, part]).mean(-1, keepdims=True) + 1e-6) * gain
        a, b = h[..., :32], h[..., 32:]
        c, s = cos[:, None], sin[:, None]
        y[:, part] = np.concatenate([a * c - b * s, b * c + a * s], -1)
    rows = [0, 5, 31]
    np.testing.assert_allclose(reference_rows(QKV, feed, 0, rows), y.reshape(32, -1)[rows], rtol=1e-10, atol=1e-10)
    # What the kernel computes instead: the norm applied to the product, from the statistics of runs.
    mean = stats[0, ..., 0].mean(-1)
    apart = np.square(stats[0, ..., 0] - mean[:, None]).mean(-1)
    root = 1 / np.sqrt(stats[0, ..., 1].sum(-1) / 128 + apart + 1e-6)
    product = root[:, None] * (x @ w.T - mean[:, None] * sums) + bias
    np.testing.assert_allclose(product, normed @ w.T + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh"])
def test_the_reference_of_activations(kind):
    problem = replace(GELU, activation=kind, norm=None, epsilon=0.0)
    feed = random_feed(problem, 1)
    y = feed[0][0].astype(np.float64) @ feed[1].astype(np.float64).T + feed[2]
    erf = np.vectorize(math.erf)(y / math.sqrt(2))
    tanh = np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3))
    np.testing.assert_allclose(
        reference_rows(problem, feed, 0, [1]), (0.5 * y * (1 + (erf if kind == "gelu" else tanh)))[[1]], rtol=1e-9
    )


def test_statistics_of_runs_join_to_those_of_the_row():
    x = np.random.default_rng(0).normal(3, 2, (4, 60))
    stats = run_statistics(x, 6)
    mean = stats[..., 0].mean(-1)
    variance = stats[..., 1].sum(-1) / 60 + np.square(stats[..., 0] - mean[:, None]).mean(-1)
    np.testing.assert_allclose(mean, x.mean(1))
    np.testing.assert_allclose(variance, x.var(1))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_candidates_fit_and_are_ranked(problem):
    variants = list(linear_candidates(problem, "9.0", 132))
    assert variants and len(set(variants)) == len(variants)
    assert all(fits_problem(problem, variant) for variant in variants)
    times = [estimate(problem, variant, 132) for variant in variants]
    assert times == sorted(times) and times[0] > 0
    assert not list(linear_candidates(problem, "8.9", 128))
    for variant in variants:
        assert variant_from_json(variant_to_json(variant)) == variant


@pytest.mark.parametrize(
    "wrong",
    [{"block_n": 24, "parts": 2}, {"cluster_m": 4, "cluster_n": 4}, {"alternate": True}, {"side": True}, {"stages": 0},
     {"groups": 4}, {"blocks": 7, "cluster_m": 2}, {"blocks": 8, "parts": 2}],
)  # fmt: skip
def test_variants_that_no_kernel_is(wrong):
    with pytest.raises(ValueError, match="there is no kernel of"):
        replace(PLAIN, **wrong)


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"precision": "fp32"}, "FP16 and BF16"), ({"inner": 36}, "multiples of 8"), ({"batch": (2, 1, 4)}, "too few"),
     ({"columns": 288, "turning": Turning(2, 48)}, "heads of 48")],
)  # fmt: skip
def test_what_no_kernel_covers(changes, why):
    with pytest.raises(Unsupported, match=why):
        check_linear(replace(QKV, **changes))


def test_problems_that_contradict_themselves():
    with pytest.raises(ValueError, match="norm batch"):
        replace(QKV, norm="batch")
    with pytest.raises(ValueError, match="three times"):
        replace(QKV, columns=256)
    with pytest.raises(ValueError, match="no activation"):
        replace(QKV, activation="gelu")
    with pytest.raises(ValueError, match="pairs of columns"):
        replace(UP, statistics=True)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_keys(problem):
    key = LinearKey.of(problem)
    assert LinearKey.of(key.problem()) == key and key.problem().batch == (problem.batch[1],) * 3
    assert key.distance(key) < key.distance(replace(key, columns=key.columns * 2))
    assert str(problem.rows) in str(key)


def test_tables_hold_linear_layers_beside_attention(tmp_path):
    entry = Entry(LinearKey.of(QKV), (Timing(PLAIN, 2.0, 1.0, 3.0, ("00",), 1e-4),))
    table = Table("NVIDIA H100", "9.0", 132, "580", {}, "2025-01-01", "cat2dog tune", (entry,))
    table.write(tmp_path / "t.json")
    read = read_table(tmp_path / "t.json")
    assert read == table and read.find(LinearKey.of(QKV)) == entry and read.nearest(LinearKey.of(GELU)) == entry


def test_a_shared_residual_and_the_statistics_have_their_shapes(compilers):
    plan = linear_plan(EMBED, LinearVariant(1, 1, 64, 2), "9.0")
    shapes = [list(array.shape) for array in random_feed(EMBED, 1)]
    assert bind(plan, shapes) == {}
    assert [tensor.shape for tensor in plan.outputs] == [(1, 48, 128), (1, 48, 2, 2)]
    launch = plan.launches[0]
    assert launch.programmatic and launch.grid == (2, 1, 1) and launch.block == 192


def test_a_dynamic_batch_and_a_cluster(compilers):
    variant = LinearVariant(1, 1, 64, 2, cluster_m=2, parts=2)
    plan = linear_plan(DOWN, variant, "9.0")
    assert plan.launches[0].cluster == 4 and plan.launches[0].grid[0] == "cdiv(B*48,128)*4"
    assert plan.outputs[1].shape == ("B", 48, 2, 2)  # each part finishes half of the columns
    assert bind(plan, [list(array.shape) for array in random_feed(DOWN, 3)]) == {"B": 3}
    with pytest.raises(Unsupported, match=r"9\.0 alone"):
        linear_plan(DOWN, variant, "8.9")


def test_gelu_of_one_exponential_is_gelu():
    """The coefficients that stand in linear_sm90.cu, in FP32 as there."""
    source = (ROOT / "engines/kernels/linear_sm90.cu").read_text("utf-8")
    brief = source.split("#if ACTIVATION == 1 && BRIEF")[1].split("#elif")[0]
    first, *rest = (np.float32(number) for number in re.findall(r"(-?\d\.\d+)f[,)]", brief.split("return")[0]))
    x = np.concatenate([np.linspace(-12, 12, 200_001), np.geomspace(12, 65504, 500), -np.geomspace(12, 65504, 500)])
    x = x.astype(np.float32)
    t = np.abs(x)
    p = t * first + rest[0]
    for coefficient in rest[1:]:
        p = t * p + coefficient
    exact = x / 2 * (1 + np.array([math.erf(value / math.sqrt(2)) for value in x.astype(np.float64)]))
    wrong = np.abs(np.maximum(x, 0) - t * np.exp2(p) - exact)
    assert len(rest) == 5 and wrong.max() < 5e-6 * 1.01 and wrong[np.abs(x) > 6].max() < 1e-7


@pytest.mark.parametrize(("columns", "across"), [(256, 4), (240, 2)])
def test_the_order_of_rows_that_a_brief_form_asks_for(compilers, columns, across):
    """What the TMA lays down, by its map, is what makes a thread's columns of a product neighbours."""
    problem = replace(GELU, columns=columns)
    variant = LinearVariant(1, 1, 64 if across == 4 else 80, 2, brief=True)
    weights = linear_plan(problem, variant, "9.0").launches[0].arguments[1]
    assert variant.across(problem) == across and math.prod(weights.box[1:]) == variant.block_n
    assert math.prod(weights.dims[1:]) == columns
    rows = np.zeros(weights.dims[:0:-1], int)
    for axis, stride in enumerate(weights.strides):
        shape = [1] * 4
        shape[3 - axis] = -1
        rows = rows + np.arange(weights.dims[axis + 1]).reshape(shape) * (stride // (2 * problem.inner))
    laid = rows.reshape(-1)
    assert sorted(laid) == list(range(columns))
    # A thread of number q holds columns 2 q and 2 q + 1 of every 8.
    for q in range(4):
        held = laid.reshape(-1, 8)[:, 2 * q : 2 * q + 2].reshape(-1, 2 * across)
        assert (held == held[:, :1] + np.arange(2 * across)).all()
