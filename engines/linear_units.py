"""What is chosen at once: linear layers that a folded norm ties together, with the attention that one takes work from.

A kernel folds the norm before it only where the kernel that wrote x left statistics. So whether a layer pays as a fused
node depends on the layer before its norm, and the other way round; it depends on no other layer, since all that passes
between units is tensors that lie alike in either form. In a transformer block a unit is a projection with the layers
that read the norm of its sum: attention's output with the MLP's first layer, and the MLP's second with the next QKV.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from engines.excerpt import cut
from engines.fused_linear_layers import Layer
from engines.fused_linear_plan import Planned
from engines.kernels.linear_key import LinearKey

FORMS = ("plugin", "tensorrt")
# Of so many layers each may take its own form; larger units are chosen as a whole.
_MOST_APART = 4


@dataclass(frozen=True, eq=False)
class Unit:
    """Layers that are chosen at once, in the order of the graph, as they are planned where all of them are fused."""

    layers: tuple[Planned, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names."""
        return tuple(planned.layer.name for planned in self.layers)

    def words(self) -> list[str]:
        """What each layer computes, for people."""
        return [str(LinearKey.of(planned.problem)) for planned in self.layers]

    def combinations(self) -> list[tuple[str, ...]]:
        """The forms to measure, one for each layer: all alike; and of few layers, each alone in either form."""
        count = len(self.layers)
        found = [("tensorrt",) * count, ("plugin",) * count]
        if 1 < count <= _MOST_APART:
            for index in range(count):
                for form, other in (FORMS, FORMS[::-1]):
                    found.append(tuple(form if each == index else other for each in range(count)))
        return list(dict.fromkeys(found))

    def excerpt(self, model: ir.Model) -> ir.Model:
        """The nodes of `model` that the unit stands for, from what its layers read to what others read of it.

        Raises ValueError where they need something else.
        """
        inputs, ends = self._inputs(), [_end(planned) for planned in self.layers]
        inside = _between(inputs, ends)
        outputs = [end for end in ends if end.is_graph_output() or any(use.node not in inside for use in end.uses())]
        return cut(model, inputs, outputs)

    def _inputs(self) -> list[ir.Value]:
        made = {planned.layer.output for planned in self.layers}
        read = []
        for planned in self.layers:
            if planned.group is None:
                read.append(planned.layer.x)
            residual = planned.layer.residual
            if residual is not None and residual[0] == "sample":
                read.append(residual[1])
        return [value for value in dict.fromkeys(read) if value not in made]


def units_of(planned: Sequence[Planned]) -> list[Unit]:
    """The planned layers by the units they are in, in the order of the graph."""
    leader: dict[Layer, Layer] = {each.layer: each.layer for each in planned}

    def first(layer: Layer) -> Layer:
        while leader[layer] is not layer:
            layer = leader[layer]
        return layer

    for each in planned:
        if each.group is not None:
            leader[first(each.layer)] = first(each.group.producer)
    units: dict[Layer, list[Planned]] = {}
    for each in planned:
        units.setdefault(first(each.layer), []).append(each)
    return [Unit(tuple(layers)) for layers in units.values()]


def signature(part: ir.Model) -> str:
    """What decides how long an excerpt takes: its operators with types and shapes, not the constants' contents."""
    lines = [f"{value.dtype}{value.shape}" for value in part.graph.inputs]
    for node in part.graph:
        read = [f"{value.dtype}{value.shape}" if value is not None else "" for value in node.inputs]
        made = [f"{value.dtype}{value.shape}" for value in node.outputs]
        lines.append(f"{node.domain}:{node.op_type} {', '.join(read)} -> {', '.join(made)}")
    return "\n".join(lines)


def best_of_each(times: Mapping[tuple[str, ...], float], index: int) -> dict[str, float]:
    """Milliseconds of a unit by the form of its layer `index`, the others in whatever form is the fastest beside it."""
    found: dict[str, float] = {}
    for forms, milliseconds in times.items():
        found[forms[index]] = min(milliseconds, found.get(forms[index], milliseconds))
    return dict(sorted(found.items()))


def _end(planned: Planned) -> ir.Value:
    """What the layer leaves; that of attention, where this takes work from it."""
    return planned.turning.node.outputs[0] if planned.turning is not None else planned.layer.output


def _between(inputs: Sequence[ir.Value], ends: Sequence[ir.Value]) -> set[ir.Node]:
    inside: set[ir.Node] = set()
    values = list(ends)
    while values:
        value = values.pop()
        node = value.producer()
        if node is None or node in inside or value in inputs:
            continue
        inside.add(node)
        values += [read for read in node.inputs if read is not None]
    return inside
