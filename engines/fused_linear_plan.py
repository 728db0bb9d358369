"""Which linear layers become fused nodes, and with what folded in: as much as there are kernels for.

Layers decide together with their norms: a norm is folded where the kernel that makes x leaves statistics and the
kernels of all layers that read the norm take them; else nothing of it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from engines.batch import BatchProfile
from engines.fused_linear_layers import Layer
from engines.fused_linear_norm import NormGroup
from engines.fused_linear_turning import AttentionTurning
from engines.fused_node import PRECISIONS
from engines.fused_problem import batch_of
from engines.graph import sizes_of
from engines.kernels.linear_problem import LinearPlanner, LinearProblem
from engines.kernels.problem import FusedKernel, Planner, Unsupported

_PRECISION_OF = {dtype: name for name, dtype in PRECISIONS.items()}


@dataclass(frozen=True, eq=False)
class Planned:
    """A layer that becomes a fused node: its problem and kernel, the norm that is folded in, what attention leaves it.

    `attention` is the kernel that the attention node gets instead of its own, where the layer turns queries and keys.
    """

    layer: Layer
    problem: LinearProblem
    kernel: FusedKernel
    group: NormGroup | None = None
    turning: AttentionTurning | None = None
    attention: FusedKernel | None = None


def linear_problem(layer: Layer, batch: BatchProfile, symbols: Collection[str]) -> LinearProblem:
    """The layer with what follows it, without norm, statistics and turning.

    Raises Unsupported for what no `LinearProblem` says.
    """
    dtype, sizes = layer.x.dtype, sizes_of(layer.x)
    precision = _PRECISION_OF.get(dtype) if dtype is not None else None
    if precision is None:
        raise Unsupported("a linear layer that is not of FP16 or BF16 has no fused kernel")
    if sizes is None or len(sizes) < 2 or any(size is None for size in sizes[1:]):
        raise Unsupported("tokens or channels of the layer are not known when the engine is built")
    rows = 1
    for size in sizes[1:-1]:
        rows *= int(size or 0)
    products = layer.products
    return LinearProblem(
        precision=precision,
        rows=rows,
        inner=products[0].inner,
        columns=sum(product.columns for product in products),
        batch=batch_of([layer.x], batch, symbols),
        bias=any(product.bias is not None for product in products),
        activation=layer.activation,
        residual=layer.residual[0] if layer.residual is not None else None,
    )


class LayerPlans:
    """Settles what becomes of the layers of one graph; `refused` says why the others keep the graph's own nodes."""

    def __init__(
        self,
        problems: Mapping[Layer, LinearProblem],
        groups: Iterable[NormGroup],
        turnings: Mapping[Layer, AttentionTurning],
        planner: LinearPlanner,
        attention: Planner | None,
    ):
        self.refused: dict[Layer, str] = {}
        self._problems = dict(problems)
        self._turnings = dict(turnings) if attention is not None else {}
        self._planner, self._attention = planner, attention
        self._groups: list[NormGroup] = []
        for group in groups:
            others = [each for each in (group.producer, *group.readers) if each not in self._problems]
            if others:
                self._miss(group, "a layer beside it is not fused")
            else:
                self._groups.append(group)

    def planned(self) -> list[Planned]:
        """The layers that are fused, in the order of the graph."""
        while True:
            found = [self._plan(layer) for layer in list(self._problems)]
            if None not in found:
                return [each for each in found if each is not None]

    def _plan(self, layer: Layer) -> Planned | None:
        """The layer as it is wanted now; None where that has no kernel, after changing what is wanted."""
        if layer not in self._problems:
            return None
        wanted = self._wanted(layer)
        try:
            kernel = self._ask(layer, wanted)
        except Unsupported as reason:
            self._want_less(layer, wanted, str(reason))
            return None
        turning = self._turnings.get(layer)
        attention = self._attention(turning.plain) if turning is not None and self._attention is not None else None
        return Planned(layer, wanted, kernel, self._norm_of(layer), turning, attention)

    def _wanted(self, layer: Layer) -> LinearProblem:
        problem, group, turning = self._problems[layer], self._norm_of(layer), self._turnings.get(layer)
        if group is not None:
            offset = group.norm.offset is not None and bool(group.norm.offset.any())
            problem = replace(problem, norm=group.norm.kind, epsilon=group.norm.epsilon, bias=problem.bias or offset)
        if turning is not None:
            problem = replace(problem, turning=turning.turning)
        return replace(problem, statistics=any(group.producer is layer for group in self._groups))

    def _ask(self, layer: Layer, problem: LinearProblem) -> FusedKernel:
        turning = self._turnings.get(layer)
        kernel = self._planner(problem)
        if turning is not None and problem.turning is not None and self._attention is not None:
            self._attention(turning.plain)
        return kernel

    def _want_less(self, layer: Layer, wanted: LinearProblem, reason: str) -> None:
        """Give up as little as there are kernels for: turning, statistics, the norm, several of these, or the layer."""
        base = self._problems[layer]
        less: dict[str, dict[str, Any]] = {
            "turning": {"turning": None},
            "statistics": {"statistics": False},
            "norm": {"norm": None, "epsilon": 0.0, "bias": base.bias},
        }
        there = [name for name in less if getattr(wanted, name) not in (None, False)]
        for count in range(1, len(there) + 1):
            for given_up in itertools.combinations(there, count):
                changes = {name: value for each in given_up for name, value in less[each].items()}
                try:
                    self._ask(layer, replace(wanted, **changes))
                except Unsupported:
                    continue
                self._give_up(layer, given_up, reason)
                return
        del self._problems[layer]
        self._turnings.pop(layer, None)
        self.refused[layer] = reason
        self._close([group for group in self._groups if layer in (group.producer, *group.readers)], reason)

    def _give_up(self, layer: Layer, names: Sequence[str], reason: str) -> None:
        if "turning" in names:
            del self._turnings[layer]
            layer.missed.append(f"QK-norm and RoPE ({reason})")
        if "statistics" in names:
            self._close([group for group in self._groups if group.producer is layer], reason)
        if "norm" in names:
            self._close([group for group in self._groups if layer in group.readers], reason)

    def _close(self, groups: Iterable[NormGroup], reason: str) -> None:
        for group in groups:
            self._groups.remove(group)
            self._miss(group, reason)

    def _miss(self, group: NormGroup, reason: str) -> None:
        for reader in group.readers:
            reader.missed.append(f"{group.norm.kind} norm ({reason})")

    def _norm_of(self, layer: Layer) -> NormGroup | None:
        return next((group for group in self._groups if layer in group.readers), None)


def folded_words(planned: Planned) -> list[str]:
    """What is inside the fused node, beside the product, for the manifest."""
    problem = planned.problem
    turning = problem.turning
    words = [f"{problem.norm} norm"] if problem.norm else []
    words += ["bias"] if problem.bias else []
    words += [problem.activation] if problem.activation else []
    words += ["QK-norm"] if turning is not None and turning.qk_norm is not None else []
    words += ["RoPE"] if turning is not None and turning.rope else []
    words += ["residual"] if problem.residual else []
    return words + (["statistics"] if problem.statistics else [])


def source_of(planned: Planned) -> ir.Value:
    """x as the kernel reads it: before the norm, where that is folded."""
    if planned.group is None:
        return planned.layer.x
    assert planned.group.norm.source is not None
    return planned.group.norm.source
