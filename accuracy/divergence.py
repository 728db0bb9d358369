"""Where a graph begins to differ from the same graph in FP32: error against depth, the block, the operator in it.

Two errors are measured of every block: `error` of the graph as it runs, which adds up, and `own`, with the FP32 graph's
value put in place of what the block before made. The first block whose own error jumps (`accuracy.thresholds` says
when) is the suspect; inside it every value is marked in turn, and the operator is the first that makes NaN or infinity
of finite numbers, else the one with the largest own error.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from accuracy.blocks import Block, find_blocks, is_float, same_values
from accuracy.debug_copy import run_marked
from accuracy.measures import not_finite, relative_error
from accuracy.thresholds import BLOCK_JUMP, GROSS_UNITS, LARGEST_FP16, LEAST_UNITS, UNIT
from engines.lowering import load


@dataclass(frozen=True)
class Deviation:
    """One block or operator: where, its value, relative errors, magnitudes, how many values are NaN or infinite.

    `largest` is the largest finite magnitude, `expected_largest` that of the FP32 graph, `input_largest` the largest of
    an operator's inputs. `own` and `error` are None where the FP32 graph has no such value.
    """

    name: str
    value: str
    op: str
    error: float | None
    own: float | None
    largest: float
    expected_largest: float | None
    not_finite: int
    input_largest: float | None = None


@dataclass(frozen=True)
class Divergence:
    """Blocks in order; the one that jumps, if any, with its operators and the guilty one; in words, why."""

    precision: str
    blocks: tuple[Deviation, ...]
    suspect: str | None
    op: str | None
    why: str
    ops: tuple[Deviation, ...] = ()

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def first_divergence(candidate: Path, reference: Path, feed: Mapping[str, np.ndarray], precision: str) -> Divergence:
    """Compare `candidate`, a graph that ONNX Runtime runs, with `reference`, the same in FP32, over one sample.

    Values are the same if they have the same name. Raises InputError for files that are no ONNX or do not run.
    """
    model = load(candidate)
    same = same_values(model, load(reference))
    blocks = find_blocks(model, list(same))
    if not blocks:
        return Divergence(precision, (), None, None, "the two graphs have no module's output in common")
    marks = [block.output for block in blocks]
    expected = _expected(reference, feed, marks, same)
    got = run_marked(candidate, feed, marks)
    own = run_marked(candidate, feed, marks, _fitting(expected, got))
    deviations = tuple(
        _deviation(block.name, block.output, block.nodes[-1].op_type, got, own, expected) for block in blocks
    )
    index, why = _jump(deviations, precision)
    if index is None:
        return Divergence(precision, deviations, None, None, why)
    before = marks[index - 1] if index else None
    ops = _operators(candidate, reference, feed, blocks[index], before, same)
    op, reason = _guilty(ops)
    return Divergence(precision, deviations, blocks[index].name, op, f"{why}; {reason}", ops)


def _expected(
    reference: Path, feed: Mapping[str, np.ndarray], names: Sequence[str], same: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """FP32 values under the candidate's names."""
    arrays = run_marked(reference, feed, list(dict.fromkeys(same[name] for name in names)))
    return {name: arrays[same[name]] for name in names}


def _fitting(expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without those of another shape: a changed graph may call another value by the same name."""
    return {name: array for name, array in expected.items() if got[name].shape == array.shape}


def _deviation(
    name: str,
    value: str,
    op: str,
    got: Mapping[str, np.ndarray],
    own: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    input_largest: float | None = None,
) -> Deviation:
    truth = expected.get(value)
    known = truth is not None and truth.shape == got[value].shape
    bad = not_finite(got[value]) - (not_finite(truth) if truth is not None and known else 0)
    return Deviation(
        name,
        value,
        op,
        relative_error(got[value], truth) if truth is not None and known else None,
        relative_error(own[value], truth) if truth is not None and known else None,
        _largest(got[value]),
        _largest(truth) if truth is not None else None,
        max(bad, 0),
        input_largest,
    )


def _largest(array: np.ndarray) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 0.0


def _jump(blocks: Sequence[Deviation], precision: str) -> tuple[int | None, str]:
    unit = UNIT[precision]
    errors = [block.own for block in blocks if block.own is not None]
    typical = statistics.median(errors)
    for index, block in enumerate(blocks):
        if block.not_finite:
            return index, f"{block.name} has {block.not_finite} values that are NaN or infinite"
        own = block.own or 0.0
        if own > LEAST_UNITS * unit and (own > BLOCK_JUMP * typical or own > GROSS_UNITS * unit):
            return index, (
                f"{block.name} by itself is {own:.2g} off, {own / unit:.0f} units of {precision} and "
                f"{own / max(typical, 1e-30):.3g} times the median block"
            )
    worst = max(blocks, key=lambda block: block.own or 0.0)
    return None, f"no block jumps; the largest error of its own is {worst.own:.2g}, of {worst.name}"


def _operators(
    candidate: Path,
    reference: Path,
    feed: Mapping[str, np.ndarray],
    block: Block,
    before: str | None,
    same: Mapping[str, str],
) -> tuple[Deviation, ...]:
    values = [(node, value) for node in block.nodes for value in node.outputs if is_float(value) and value.name]
    names = [str(value.name) for _, value in values]
    known = [name for name in [*filter(None, [before]), *names] if name in same]
    expected = _expected(reference, feed, known, same)
    got = run_marked(candidate, feed, list(dict.fromkeys([*filter(None, [before]), *names])))
    own = run_marked(candidate, feed, names, _fitting(expected, got))
    return tuple(
        _deviation(
            node.name or "",
            str(value.name),
            node.op_type,
            got,
            own,
            expected,
            _input_largest(node, {**expected, **got}),
        )
        for node, value in values
    )


def _input_largest(node: ir.Node, arrays: Mapping[str, np.ndarray]) -> float | None:
    inputs = [arrays[str(value.name)] for value in node.inputs if value is not None and value.name in arrays]
    return max((_largest(array) for array in inputs), default=None)


def _guilty(ops: Sequence[Deviation]) -> tuple[str | None, str]:
    for op in ops:
        if op.not_finite:
            into = f" from inputs up to {op.input_largest:.4g}" if op.input_largest is not None else ""
            return op.name, (
                f"{op.name} ({op.op}) makes {op.not_finite} values NaN or infinite{into}; FP16 ends at {LARGEST_FP16:g}"
            )
    known = [op for op in ops if op.own is not None]
    if not known:
        return None, "no operator in it has a counterpart in the FP32 graph"
    worst = max(known, key=lambda op: op.own or 0.0)
    return worst.name, (
        f"{worst.name} ({worst.op}) by itself is {worst.own:.2g} off, "
        f"with magnitudes up to {worst.largest:.4g} where FP32 has {worst.expected_largest:.4g}"
    )
