"""The form `plugin` of linear layers: each, with the norm before and what follows, becomes one fused kernel's node.

In order: the layers of the graph and what can be folded into them are found; it is settled which of it there are
kernels for; what was folded is checked, number for number, against the graph as it is; then the nodes are written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from engines.attention import DOMAIN, LoweredNode
from engines.batch import BatchProfile
from engines.constants import constant, integers
from engines.fold_check import FoldChecks
from engines.fused_linear_body import linear_inputs
from engines.fused_linear_check import check_layer, operations_of
from engines.fused_linear_layers import Layer, find_layers
from engines.fused_linear_node import STATISTICS, linear_attributes, statistics_runs
from engines.fused_linear_norm import InputNorm, find_norms
from engines.fused_linear_plan import LayerPlans, Planned, folded_words, linear_problem, source_of
from engines.fused_linear_turning import find_turning
from engines.fused_linear_weights import Weights, lay_out
from engines.fused_node import LINEAR
from engines.graph import constant_array, graph_of, new_node, sizes_of, take_over
from engines.kernels.linear_problem import LinearPlanner
from engines.kernels.problem import FusedKernel, Planner, Unsupported

# What checks may cost beyond one of each problem, in floating-point operations: about a second of a CPU.
_CHECKED = 100_000_000_000
_FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True)
class Choice:
    """The form a layer shall take, `plugin` or `tensorrt`, why, and the milliseconds of each where they were measured.

    A layer that shall be a kernel of ours and has none stays TensorRT's own.
    """

    form: str
    why: str
    measured: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedLayers:
    """All layers in the order of the graph, those that become fused nodes, and why the others do not."""

    layers: tuple[Layer, ...]
    planned: tuple[Planned, ...]
    refused: Mapping[Layer, str]


@dataclass(frozen=True)
class LoweredLayers:
    """What became of each linear layer, in the order of the graph, and which attention nodes got another kernel."""

    nodes: tuple[LoweredNode, ...]
    attention: Mapping[str, FusedKernel]

    def again(self, node: LoweredNode) -> LoweredNode:
        """What is to be said of an attention node after its QK-norm and RoPE moved."""
        kernel = self.attention.get(node.node)
        if kernel is None:
            return node
        why = f"{kernel.why}; QK-norm and RoPE are in the linear layer before"
        return replace(node, why=why, variant=kernel.variant, milliseconds=kernel.milliseconds)


@dataclass(frozen=True)
class LinearLowering:
    """Lowers linear layers to kernels of `planner`, for graphs whose batch is `batch`, called `symbols` in shapes.

    `attention` plans attention nodes anew, whose QK-norm and RoPE move into the layer before; None leaves them there.
    `choices` say by name which layers stay TensorRT's own, and what was measured of each. `checks` None checks nothing.
    """

    planner: LinearPlanner
    batch: BatchProfile
    symbols: Collection[str] = ()
    attention: Planner | None = None
    checks: FoldChecks | None = field(default_factory=lambda: FoldChecks(_CHECKED, operations_of))
    choices: Mapping[str, Choice] = field(default_factory=dict)

    def plan(self, model: ir.Model) -> PlannedLayers:
        """What would become of the layers of `model`, which stays as it is."""
        layers = find_layers(model)
        groups = find_norms(layers)
        problems, refused = {}, {}
        for layer in layers:
            choice = self.choices.get(layer.name)
            try:
                problem = linear_problem(layer, self.batch, self.symbols)
            except Unsupported as reason:
                refused[layer] = str(reason)
                continue
            if choice is not None and choice.form == "tensorrt":
                refused[layer] = choice.why
            else:
                problems[layer] = problem
        turnings = {layer: found for layer in problems if (found := find_turning(layer)) is not None}
        plans = LayerPlans(problems, groups, turnings, self.planner, self.attention)
        return PlannedLayers(tuple(layers), tuple(plans.planned()), {**refused, **plans.refused})

    def lower(self, model: ir.Model) -> LoweredLayers:
        """Rewrite the linear layers of `model` in place, and the attention nodes that they take work from.

        Raises ToolchainError where what was folded does not compute what the graph computed.
        """
        plans, lowered = self.plan(model), {}
        writer = _Writer(model)
        prepared = [(planned, lay_out(planned.layer, _norm(planned))) for planned in plans.planned]
        for planned, weights in prepared:
            if self.checks is not None and self.checks.wanted(planned.problem):
                check_layer(planned, _runs(planned), _constants(planned, weights, weights.matrix()), model)
        for planned, weights in prepared:
            writer.write(planned, weights)
            lowered[planned.layer] = self._described(planned)
        for layer, why in plans.refused.items():
            choice = self.choices.get(layer.name, Choice("tensorrt", ""))
            lowered[layer] = LoweredNode(layer.name, "tensorrt", why, measured=choice.measured)
        attention = {
            str(planned.turning.node.name): planned.attention
            for planned, _ in prepared
            if planned.turning is not None and planned.attention is not None
        }
        return LoweredLayers(tuple(lowered[layer] for layer in plans.layers), attention)

    def _described(self, planned: Planned) -> LoweredNode:
        name, kernel, inside, missed = planned.layer.name, planned.kernel, folded_words(planned), planned.layer.missed
        choice = self.choices.get(name, Choice("plugin", ""))
        parts = [kernel.why]
        parts += [f"folded: {', '.join(inside)}"] if inside else []
        parts += [f"not folded: {', '.join(missed)}"] if missed else []
        why = "; ".join(part for part in (*parts, choice.why) if part)
        return LoweredNode(name, "plugin", why, kernel.variant, kernel.milliseconds, choice.measured)


def _norm(planned: Planned) -> InputNorm | None:
    return planned.group.norm if planned.group is not None else None


def _runs(planned: Planned) -> int:
    return statistics_runs(planned.kernel) if planned.problem.statistics else 1


def _constants(planned: Planned, weights: Weights, matrix: np.ndarray) -> dict[str, np.ndarray]:
    """The constant inputs of the node by their names in `linear_inputs`."""
    found = {"weights": matrix}
    if weights.sums is not None:
        found["sums"] = weights.sums
    if weights.bias is not None:
        found["bias"] = weights.bias
    if planned.turning is not None:
        names = [name for name in linear_inputs(planned.problem) if name in ("gain_query", "gain_key", "cos", "sin")]
        arrays = [constant_array(value) for value in planned.turning.extras]
        found.update({name: array for name, array in zip(names, arrays, strict=True) if array is not None})
    residual = planned.layer.residual
    if residual is not None and residual[0] == "shared":
        array = constant_array(residual[1])
        assert array is not None
        found["residual"] = array.reshape(planned.problem.rows, planned.problem.width).copy()
    return found


class _Writer:
    """Writes planned nodes into a graph, in its order."""

    def __init__(self, model: ir.Model):
        self.model = model
        # What the graph's own values became: the same tensor, and where a fused node makes it as `[B, rows, channels]`.
        self._now: dict[ir.Value, ir.Value] = {}
        self._rows: dict[ir.Value, ir.Value] = {}
        self._statistics: dict[Layer, ir.Value] = {}

    def write(self, planned: Planned, weights: Weights) -> None:
        """Put the fused node in the place of the layer's own nodes."""
        p, layer = planned.problem, planned.layer
        last, name = layer.last, layer.name
        given: dict[str, ir.Value] = {
            "x": self._as_rows(source_of(planned), last, p.rows, p.inner, f"{name}.x"),
            "weights": self._matrix(weights),
        }
        if planned.group is not None:
            given["statistics_in"] = self._statistics[planned.group.producer]
        if weights.sums is not None:
            given["sums"] = constant(self.model, self._free(f"{weights.name}.sums"), weights.sums, _FLOAT)
        if weights.bias is not None:
            given["bias"] = constant(self.model, self._free(f"{weights.name}.bias"), weights.bias, _FLOAT)
        if planned.turning is not None:
            names = [each for each in linear_inputs(p) if each in ("gain_query", "gain_key", "cos", "sin")]
            given.update(zip(names, planned.turning.extras, strict=True))
        if layer.residual is not None:
            kind, value = layer.residual
            if kind == "shared":
                given["residual"] = self._shared(value, p.rows, p.width)
            else:
                given["residual"] = self._as_rows(value, last, p.rows, p.width, f"{name}.residual")
        outputs = [ir.Value(name=f"{name}.fused")]
        if p.statistics:
            outputs.append(ir.Value(name=f"{name}{STATISTICS}", type=ir.TensorType(_FLOAT)))
        attributes = linear_attributes(p, planned.kernel, DOMAIN)
        inputs = [given[each] for each in linear_inputs(p)]
        fused = ir.Node(DOMAIN, LINEAR, inputs, attributes, outputs=outputs, name=name)
        graph_of(last).insert_before(last, fused)
        self.model.opset_imports[DOMAIN] = 1
        if planned.turning is not None and planned.attention is not None:
            planned.turning.apply(planned.attention)
        self._take_over(planned, fused)

    def _take_over(self, planned: Planned, fused: ir.Node) -> None:
        p, old = planned.problem, planned.layer.output
        new, sizes = fused.outputs[0], sizes_of(old)
        assert sizes is not None and old.shape is not None
        new.type = old.type
        new.shape = ir.Shape([old.shape[0], p.rows, p.width])
        if p.statistics:
            fused.outputs[1].shape = ir.Shape([old.shape[0], p.rows, _runs(planned), 2])
            self._statistics[planned.layer] = fused.outputs[1]
        self._rows[old] = new
        if len(sizes) != 3:
            rest = [int(size or 0) for size in sizes[1:]]
            shape = integers(self.model, "cat2dog.shape_" + "x".join(str(size) for size in rest), [-1, *rest])
            apart = new_node("Reshape", [new, shape], {}, f"{fused.name}.apart", old.dtype)
            graph_of(fused).insert_after(fused, apart)
            new = apart.outputs[0]
            new.shape = old.shape
        self._now[old] = new
        take_over(new, old)
        if planned.turning is not None:
            # With QK-norm and RoPE inside it is another value than the one that the unfused graph calls by that name.
            new.name = f"{new.name}.turned"

    def _as_rows(self, value: ir.Value, before: ir.Node, rows: int, channels: int, name: str) -> ir.Value:
        """The value as `[B, rows, channels]`: itself, what a fused node made of it, or reshaped before the node."""
        if value in self._rows:
            return self._rows[value]
        value = self._now.get(value, value)
        sizes = sizes_of(value)
        assert sizes is not None and value.shape is not None
        if len(sizes) == 3:
            return value
        shape = integers(self.model, f"cat2dog.rows_{rows}x{channels}", [-1, rows, channels])
        reshaped = new_node("Reshape", [value, shape], {}, f"{name}.rows", value.dtype)
        reshaped.outputs[0].shape = ir.Shape([value.shape[0], rows, channels])
        graph_of(before).insert_before(before, reshaped)
        return reshaped.outputs[0]

    def _matrix(self, weights: Weights) -> ir.Value:
        """An initializer that is made when the file is written."""
        name = self._free(weights.name)
        tensor = ir.LazyTensor(
            lambda: ir.Tensor(weights.matrix(), dtype=weights.dtype, name=name),
            dtype=weights.dtype, shape=ir.Shape(weights.shape), name=name,
        )  # fmt: skip
        value = ir.Value(name=name, type=ir.TensorType(weights.dtype), shape=tensor.shape, const_value=tensor)
        self.model.graph.register_initializer(value)
        return value

    def _shared(self, value: ir.Value, rows: int, columns: int) -> ir.Value:
        """A constant that is added to every sample, as `[rows, columns]`."""
        array = constant_array(value)
        assert array is not None and value.dtype is not None
        if array.shape == (rows, columns) and value.is_initializer():
            return value
        return constant(self.model, self._free(f"{value.name}.shared"), array.reshape(rows, columns), value.dtype)

    def _free(self, name: str) -> str:
        """The name, or where a layer of the same weights has it, the next one like it."""
        number, free = 1, name
        while free in self.model.graph.initializers:
            number += 1
            free = f"{name}_{number}"
        return free
