"""Chooses the linear layers' kernels of a transformer's block together: what is fastest alone need not be so in a row.

Timed by itself, a kernel overlaps with itself: where two blocks of it fit on a multiprocessor, the next launch begins
before the last ends. In a network, other kernels stand before and after it. And what a kernel leaves for the next (into
how many runs it cuts its statistics) costs the next. So a few blocks, with weights of their own, are launched in a row,
and one layer after the other tries its candidates while the rest stays.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from engines.kernels.chain import Chain, ChainNode, ChainOnGpu
from engines.kernels.launch import LaunchPlan
from engines.kernels.linear_measure import MeasuredLinear, random_feed
from engines.kernels.linear_plan import linear_plan, operands_of
from engines.kernels.linear_problem import LinearProblem
from engines.kernels.linear_variants import LinearVariant, block_candidates
from engines.kernels.problem import Unsupported
from engines.kernels.tables import InBlock, Timing
from engines.kernels.tune import checked_timing

# Blocks in a row. At 256 tokens their weights are four times what the L2 holds.
BLOCKS = 6
STAMPED = "stamps"
_AGAIN = 6
_REPEATS, _AT_LENGTH = 15, 100
# Another choice must be that much better: less is noise.
_BETTER = 0.997
_FROM_BEFORE = ("x", "statistics")

Progress = Callable[[str, "float | None"], None]


@dataclass(frozen=True)
class Block:
    """A block's layers in order: QKV, projection, up, down; and the attention between the first two."""

    qkv: LinearProblem
    projection: LinearProblem
    up: LinearProblem
    down: LinearProblem
    attention: LaunchPlan

    @property
    def linear(self) -> dict[str, LinearProblem]:
        """The linear layers by name."""
        return {name: getattr(self, name) for name in ("qkv", "projection", "up", "down")}


def tune_block(
    block: Block,
    before: Mapping[str, LinearVariant],
    target: str,
    multiprocessors: int,
    progress: Progress = lambda what, fraction: None,
) -> dict[str, InBlock]:
    """Which variant each linear layer takes, beginning with those in `before`, by the layers' names.

    Raises ToolchainError where a chosen kernel gives wrong numbers, Unsupported where one of `before` does not fit.
    """
    batch = block.qkv.batch[1]
    weights = BlocksInRow(block, batch)
    plans = {name: linear_plan(block.linear[name], variant, target) for name, variant in before.items()}
    chosen = dict(before)
    with ChainOnGpu(weights.chain(plans), batch) as there:

        def timed(tried: Mapping[str, LaunchPlan], repeats: int = _REPEATS) -> list[float]:
            with ChainOnGpu(weights.chain(tried), batch, there) as other:
                times = other.milliseconds(other.prepared(), repeats, warm_up=5)
            return [1e3 * ms / BLOCKS for ms in times]

        best = statistics.median(timed(plans))
        ranked: dict[str, list[LinearVariant]] = {}
        for sweep in range(2):
            # Backwards: what a layer leaves is the next one's burden.
            for name in reversed(block.linear):
                problem, rows = block.linear[name], []
                of = block_candidates(problem, target, multiprocessors) if sweep == 0 else ranked[name][:_AGAIN]
                for number, variant in enumerate(of):
                    progress(f"block of {problem.rows} tokens, {name}: {variant}", number / len(of))
                    try:
                        plan = linear_plan(problem, variant, target)
                    except Unsupported:
                        continue
                    rows.append((statistics.median(timed({**plans, name: plan})), str(variant), variant, plan))
                rows.sort(key=lambda row: row[:2])
                ranked[name] = [row[2] for row in rows]
                if rows and rows[0][0] < best * _BETTER:
                    best, _, chosen[name], plans[name] = rows[0]
        times = sorted(timed(plans, _AT_LENGTH))
    us = (round(statistics.median(times), 3), round(times[0], 3), round(times[-1], 3))
    return {name: InBlock(_alone(block.linear[name], chosen[name], plans[name]), us) for name in block.linear}


def _alone(problem: LinearProblem, variant: LinearVariant, plan: LaunchPlan) -> Timing:
    """A chosen variant's time by itself, checked against FP64."""
    with MeasuredLinear(problem, plan, problem.batch[1]) as measured:
        return checked_timing(measured, variant, plan, problem.precision, "in a block")


class BlocksInRow:
    """Constants of `BLOCKS` blocks: random, and in each block others than in the last.

    `constants` are theirs by name; a node `0.up` of a chain has the outputs `0.up.y`, where the layer leaves statistics
    `0.up.statistics.y`, and with a plan that stamps `0.up.stamps`.
    """

    def __init__(self, block: Block, batch: int):
        self.block, self.batch = block, batch
        self.constants: dict[str, np.ndarray] = {}
        self.names: dict[tuple[int, str], dict[str, str]] = {}
        for name, problem in block.linear.items():
            feed = random_feed(problem, batch)
            operands = list(operands_of(problem, batch)[1])
            for number in range(BLOCKS):
                named = {}
                for operand, array in zip(operands, feed, strict=True):
                    if operand in _FROM_BEFORE and not (name == "qkv" and number == 0):
                        continue
                    named[operand] = f"{number}.{name}.{operand}"
                    if operand != "residual":
                        self.constants[named[operand]] = np.roll(array, number, -1) if operand == "weights" else array
                self.names[number, name] = named

    def chain(self, plans: Mapping[str, LaunchPlan]) -> Chain:
        """The launches of all blocks, with these plans of the linear layers."""
        nodes: list[ChainNode] = []
        first = self.names[0, "qkv"]
        stream, noted = first["x"], first.get("statistics", "")

        def add(number: int, name: str, plan: LaunchPlan, inputs: Iterable[str]) -> list[str]:
            problem = self.block.linear.get(name)
            outputs = ["y", "statistics.y"] if problem is not None and problem.statistics else ["y"]
            # With stamps, one more.
            every = [f"{number}.{name}.{output}" for output in [*outputs, STAMPED][: len(plan.outputs)]]
            nodes.append(ChainNode(f"{number}.{name}", plan, tuple(inputs), tuple(every), ""))
            return every[: len(outputs)]

        def linear(number: int, name: str, x: str, statistics: str, residual: str) -> list[str]:
            given = {"x": x, "statistics": statistics, "residual": residual}
            named = self.names[number, name]
            operands = operands_of(self.block.linear[name], self.batch)[1]
            return add(number, name, plans[name], [given.get(operand) or named[operand] for operand in operands])

        for number in range(BLOCKS):
            (qkv,) = linear(number, "qkv", stream, noted, "")
            (mixed,) = add(number, "attention", self.block.attention, [qkv])
            stream, *left = linear(number, "projection", mixed, "", stream)
            (wide, *_) = linear(number, "up", stream, left[0] if left else "", "")
            stream, *left = linear(number, "down", wide, "", stream)
            noted = left[0] if left else ""
        return Chain(tuple(nodes), self.constants)
