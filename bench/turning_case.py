"""What `bench.turning` measures: a block's QKV layer and attention, where QK-norm and RoPE are done, their kernels."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from engines.kernels.chain import Chain, ChainNode
from engines.kernels.linear_measure import random_feed
from engines.kernels.linear_plan import linear_plan, operands_of
from engines.kernels.linear_problem import LinearPlanner, LinearProblem, Turning
from engines.kernels.linear_variants import LinearVariant, linear_candidates
from engines.kernels.problem import AttentionProblem, FusedKernel, Planner, Unsupported

TOKENS = (256, 1024, 4096)
HEADS = ((20, 64), (14, 128))
BATCHES = (1, 4)
PLAIN, IN_LAYER, IN_ATTENTION = "plain", "in the QKV layer", "in attention"
FORMS = (PLAIN, IN_LAYER, IN_ATTENTION)
_TARGET = "9.0"
_EPSILON = 1e-6
# Weights of all layers, so that none of them still lies in the L2 when its layer comes again.
_MORE_THAN_CACHE = 128 << 20
# Rows that are made up; a case has as many copies of them as it has tokens.
_ROWS = 256
_OF_TOKENS = ("x", "statistics")


@dataclass(frozen=True)
class Case:
    """`tokens` tokens of `heads` heads of `size` channels, `batch` samples."""

    precision: str
    heads: int
    size: int
    tokens: int
    batch: int

    @property
    def width(self) -> int:
        """Channels of the residual stream."""
        return self.heads * self.size

    @property
    def layers(self) -> int:
        """Layers in a row: their weights are more than the L2 holds."""
        return max(4, math.ceil(_MORE_THAN_CACHE / (6 * self.width**2)))

    def layer(self, form: str) -> LinearProblem:
        """The QKV layer, with the norm before it."""
        turning = Turning(self.heads, self.size, _EPSILON, True) if form == IN_LAYER else None
        batch = (self.batch,) * 3
        return LinearProblem(
            self.precision, self.tokens, self.width, 3 * self.width, batch, "layer", _EPSILON, turning=turning
        )

    def attention(self, form: str) -> AttentionProblem:
        """Attention over what the QKV layer gives."""
        turned = form == IN_ATTENTION
        return AttentionProblem(
            self.precision, self.heads, self.size, self.tokens, self.tokens, self.size**-0.5, (self.batch,) * 3,
            qk_norm=_EPSILON if turned else None, rope=turned,
        )  # fmt: skip

    def __str__(self) -> str:
        return f"{self.tokens} tokens, {self.heads}x{self.size}, batch {self.batch}, {self.precision}"


def cases() -> Iterator[Case]:
    """All that is measured, those that share weights beside each other."""
    for precision in ("fp16", "bf16"):
        for heads, size in HEADS:
            for tokens in TOKENS:
                for batch in BATCHES:
                    yield Case(precision, heads, size, tokens, batch)


@dataclass(frozen=True)
class Kernels:
    """Where kernels come from: the planners of a GPU with so many multiprocessors, and how many more are tried.

    What the planner takes for a layer that nobody measured is a guess, and a guess for one form and not for the other
    would be compared with it. So every form has `more` of the estimated fastest beside the planner's.
    """

    linear: LinearPlanner
    attention: Planner
    multiprocessors: int
    more: int

    def layers(self, problem: LinearProblem) -> list[FusedKernel]:
        """The planner's first."""
        found = {(picked := self.linear(problem)).variant: picked}
        for variant in self._candidates(problem):
            if len(found) > self.more:
                break
            try:
                plan = linear_plan(problem, variant, _TARGET)
            except Unsupported:
                continue
            found.setdefault(str(variant), FusedKernel(plan, str(variant), "among the estimated fastest"))
        return list(found.values())

    def _candidates(self, problem: LinearProblem) -> Iterable[LinearVariant]:
        return linear_candidates(problem, _TARGET, self.multiprocessors)


@functools.cache
def feed(precision: str, heads: int, size: int) -> Mapping[str, np.ndarray]:
    """The QKV layer's operands by name, of 256 tokens and one sample."""
    problem = Case(precision, heads, size, _ROWS, 1).layer(IN_LAYER)
    return dict(zip(operands_of(problem, 1)[1], random_feed(problem, 1), strict=True))


def weights(case: Case) -> dict[str, np.ndarray]:
    """What cases of other lengths and batches share, by the names that chains have for them."""
    given = feed(case.precision, case.heads, case.size)
    found = {name: given[name] for name in ("sums", "bias", "gain_q", "gain_k")}
    # Turned channels leave the sums of rows as they are.
    return {**found, **{f"{n}.weights": np.roll(given["weights"], n, -1) for n in range(case.layers)}}


def activations(case: Case) -> dict[str, np.ndarray]:
    """What every layer reads: x `[batch, tokens, width]`, its statistics, and the tables of RoPE."""
    given = feed(case.precision, case.heads, case.size)
    times = case.tokens // _ROWS
    found = {name: np.tile(given[name], (case.batch, times, *[1] * (given[name].ndim - 2))) for name in _OF_TOKENS}
    return {**found, **{name: np.tile(given[name], (times, 1)) for name in ("cosines", "sines")}}


def chain(
    case: Case, form: str, layer: FusedKernel, attention: FusedKernel, constants: Mapping[str, np.ndarray]
) -> Chain:
    """QKV layer and attention, one layer after the other, each with weights of its own; `constants` by name."""
    operands = list(operands_of(case.layer(form), case.batch)[1])
    turning = ["gain_q", "gain_k", "cosines", "sines"] if form == IN_ATTENTION else []
    nodes = []
    for number in range(case.layers):
        named = [f"{number}.weights" if operand == "weights" else operand for operand in operands]
        qkv, mixed = f"{number}.qkv", f"{number}.mixed"
        nodes.append(ChainNode(qkv, layer.plan, tuple(named), (qkv,), layer.variant))
        nodes.append(ChainNode(mixed, attention.plan, (qkv, *turning), (mixed,), attention.variant))
    return Chain(tuple(nodes), constants)


def last(case: Case) -> str:
    """The name of what the last layer's attention gives."""
    return f"{case.layers - 1}.mixed"


def compile_case(work: tuple[Case, Callable[[], Kernels]]) -> int:
    """Compile what one case needs, in a process of its own; returns how many kernels there are."""
    case, made = work
    kernels = made()
    count = 0
    for form in FORMS:
        count += len(kernels.layers(case.layer(form))) if form != IN_ATTENTION else 0
        kernels.attention(case.attention(form))
        count += form != IN_LAYER
    return count
