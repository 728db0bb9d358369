"""Runs a fused linear node's body against the nodes it stands for, in ONNX Runtime, while the graph is lowered.

One layer of each problem is checked, and of the others, which differ in weights, as many as a budget allows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from engines.excerpt import excerpt, name_of, random_rows, run_once
from engines.fused_body import calling, heads_body, input_names
from engines.fused_linear_body import linear_body, linear_inputs, statistics_of
from engines.fused_linear_plan import Planned, source_of
from engines.fused_node import PRECISIONS
from engines.graph import constant_array, sizes_of
from engines.kernels.linear_problem import LinearProblem
from engines.rounding import check_rounded

_ADVICE = "build with --linear tensorrt"
# How many roundings the graph may be away from the kernel, which rounds W and y alone: of the norm's output, whose
# errors add up over the inner channels like W's own, of the product, the bias, four of an activation, and a sum.
_ROUNDINGS = 8


def operations_of(problem: LinearProblem) -> int:
    """Floating-point operations that a check of the problem costs."""
    return problem.operations * problem.batch[0]


def check_layer(planned: Planned, runs: int, constants: Mapping[str, np.ndarray], model: ir.Model) -> None:
    """Compare the body of a planned node with the graph's own nodes, which are all still there.

    `runs` are those of the statistics that the node leaves, `constants` the node's constant inputs by the names of
    `linear_inputs`. Raises ToolchainError, with the numbers, where they differ by more than rounding.
    """
    p, layer = planned.problem, planned.layer
    rng, opset = np.random.default_rng(0), model.opset_imports.get("", 17)
    x, dtype = source_of(planned), PRECISIONS[p.precision]
    sources = [x]
    if layer.residual is not None and layer.residual[0] == "sample" and layer.residual[1] is not x:
        sources.append(layer.residual[1])
    feed = {name_of(source): random_rows(source, p.batch[0], rng) for source in sources}
    (expected,) = run_once(excerpt(model, sources, [layer.output], dtype), feed)
    given = {name: array.astype(np.float32) for name, array in constants.items()}
    given["x"] = feed[name_of(x)].reshape(p.batch[0], p.rows, p.inner)
    if p.norm:
        # Whatever the producer cuts its channels into: the norm is the same.
        given["statistics_in"] = statistics_of(given["x"], math.gcd(p.inner, 4))
    if layer.residual is not None and layer.residual[0] == "sample":
        given["residual"] = feed[name_of(layer.residual[1])].reshape(p.batch[0], p.rows, p.width)
    names = linear_inputs(p)
    body = calling(linear_body(p, runs, "Linear", opset), {name: given[name].ndim for name in names}, opset)
    got, *left = run_once(body, {name: given[name] for name in names})
    what = f"{layer.name}: the {{}} of the fused linear node"
    expected = expected.reshape(p.batch[0], p.rows, p.width)
    if planned.turning is None:
        check_rounded(what.format("numbers"), expected, got, p.precision, _ROUNDINGS, _ADVICE)
    else:
        _check_turned(what, expected, got, planned, opset)
    if left:
        means, within = np.moveaxis(statistics_of(expected, runs), -1, 0)
        got_means, got_within = np.moveaxis(left[0], -1, 0)
        largest = np.abs(expected).max(-1, keepdims=True)
        # Of means, and of mean squares: beside the row's largest number, which the errors are of.
        for part, wanted, found in (
            ("means", means, got_means),
            ("squares", _roots(within, p.width // runs), _roots(got_within, p.width // runs)),
        ):
            beside, found_beside = (np.concatenate([array, largest], -1) for array in (wanted, found))
            check_rounded(what.format(part), beside, found_beside, p.precision, _ROUNDINGS, _ADVICE)


def _roots(within: np.ndarray, size: int) -> np.ndarray:
    return np.sqrt(within / size)


def _check_turned(what: str, expected: np.ndarray, got: np.ndarray, planned: Planned, opset: int) -> None:
    """`expected` are queries, keys and values before attention norms and turns them, `got` those after."""
    assert planned.turning is not None
    heads = []
    for packed, problem in ((expected, planned.turning.problem), (got, planned.turning.plain)):
        names = input_names(problem)
        arrays = [packed, *(_constant(value) for value in planned.turning.extras)][: len(names)]
        feed = dict(zip(names, arrays, strict=True))
        ranks = {name: array.ndim for name, array in feed.items()}
        heads.append(run_once(calling(heads_body(problem, "Heads", opset), ranks, opset), feed))
    for part, wanted, found in zip(("queries", "keys", "values"), *heads, strict=True):
        check_rounded(what.format(part), wanted, found, planned.problem.precision, _ROUNDINGS, _ADVICE)


def _constant(value: ir.Value) -> np.ndarray:
    array = constant_array(value)
    assert array is not None and sizes_of(value) is not None
    return array
