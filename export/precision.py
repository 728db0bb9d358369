"""Writes a policy into the graph: weights and activations narrow, casts where an island begins and ends."""

from __future__ import annotations

import ast

import numpy as np
import onnx
import onnx_ir as ir

from export.policy import Policy
from export.weights import IR_TYPE, NUMPY, rounded

_FLOAT = ir.DataType.FLOAT

# Operators that move values and compute nothing: they take the precision of what they move, so that no cast is needed
# on their account.
_MOVES = frozenset(
    "Identity Reshape Transpose Squeeze Unsqueeze Flatten Slice Split Gather GatherND GatherElements Expand Tile Concat"
    " DepthToSpace SpaceToDepth Pad SequenceAt Where".split()
)


def module_path(node: ir.Node) -> str:
    """Dotted path of the PyTorch module that made the node, `""` for the outermost or unknown."""
    scopes = _metadata_list(node, "pkg.torch.onnx.name_scopes")
    return scopes[-2] if len(scopes) >= 2 else ""


def module_kind(node: ir.Node) -> str:
    """Class name of that module, without its package."""
    classes = _metadata_list(node, "pkg.torch.onnx.class_hierarchy")
    return classes[-2].rsplit(".", 1)[-1] if len(classes) >= 2 else ""


def _metadata_list(node: ir.Node, key: str) -> list[str]:
    text = node.metadata_props.get(key)
    return [str(item) for item in ast.literal_eval(text)] if text else []


def _is_activation(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is None


def is_residual(node: ir.Node) -> bool:
    """Whether an Add joins a branch to its stream: two activations of one shape, one of them used elsewhere too."""
    if node.op_type != "Add" or node.domain != "" or not all(_is_activation(value) for value in node.inputs):
        return False
    first, second = node.inputs
    if first is None or second is None or first is second or first.shape != second.shape:
        return False
    return any(len(value.uses()) > 1 for value in (first, second))


def _floats(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None and value.dtype in (_FLOAT, *_NARROW)]


_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def apply_policy(model: ir.Model, policy: Policy) -> dict[str, int]:
    """Change an FP32 `model` in place to `policy`; inputs and outputs of the graph keep their types.

    Returns how many nodes compute narrow, how many FP32, and how many casts were added.
    """
    if policy.precision == "fp32":
        return {"narrow": 0, "fp32": len(model.graph), "casts": 0}
    narrow = IR_TYPE[policy.precision]
    nodes = list(model.graph.all_nodes())
    in_subgraph = {id(node) for node in nodes if node.graph is not model.graph}
    width = _widths(nodes, in_subgraph, policy, narrow, model.opset_imports.get("", 17))
    for node in nodes:
        if id(node) not in in_subgraph:
            _retype_outputs(node, width[id(node)], model)
    casts = _Casts(model, policy.precision)
    for node in nodes:
        for index, value in enumerate(node.inputs):
            if value is not None and (value.dtype == _FLOAT or value.dtype in _NARROW) and _takes_float(node, index):
                casts.feed(node, index, value, width[id(node)])
    casts.feed_graph_outputs()
    wide = sum(1 for node in nodes if width[id(node)] == _FLOAT)
    return {"narrow": len(nodes) - wide, "fp32": wide, "casts": casts.count}


def computing_nodes(model: ir.Model, policy: Policy) -> list[ir.Node]:
    """Nodes of an FP32 `model` that `policy` makes narrow and that compute: only these can lose anything by it."""
    nodes = list(model.graph.all_nodes())
    in_subgraph = {id(node) for node in nodes if node.graph is not model.graph}
    width = _widths(nodes, in_subgraph, policy, IR_TYPE[policy.precision], model.opset_imports.get("", 17))
    return [
        node
        for node in nodes
        if width[id(node)] != _FLOAT
        and not (node.op_type in _MOVES and node.domain == "")
        and any(output.dtype == _FLOAT for output in node.outputs)
    ]


def _widths(
    nodes: list[ir.Node], in_subgraph: set[int], policy: Policy, narrow: ir.DataType, opset: int
) -> dict[int, ir.DataType]:
    """The type each node computes in, by its id."""
    width = {}
    moves = []
    for node in nodes:
        if id(node) in in_subgraph or _has_subgraph(node):
            width[id(node)] = _FLOAT  # what a branch or loop body captures keeps one type
        elif node.op_type in _MOVES and node.domain == "" and any(_is_activation(value) for value in _floats(node)):
            moves.append(node)
        else:
            described = (module_path(node), node.op_type, module_kind(node), is_residual(node))
            island = any(island.holds(*described) for island in policy.islands)
            width[id(node)] = _FLOAT if island or not _exists(node, narrow, opset) else narrow
    wide_demand = _WideDemand(width)
    for node in moves:  # in topological order, so that the producers are decided
        producers = [value.producer() for value in _floats(node) if _is_activation(value)]
        from_wide = any(producer is None or width[id(producer)] == _FLOAT for producer in producers)
        width[id(node)] = _FLOAT if from_wide and wide_demand.of(node) else narrow
    return width


def _has_subgraph(node: ir.Node) -> bool:
    return any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values()
    )


class _WideDemand:
    """Whether anything behind a moving node computes in FP32: only then is it worth moving twice the bytes."""

    def __init__(self, width: dict[int, ir.DataType]):
        self.width, self.known = width, {}

    def of(self, node: ir.Node) -> bool:
        stack = [node]
        while stack:
            top = stack[-1]
            unknown = [user for user in self._moving_users(top) if id(user) not in self.known]
            if id(top) in self.known or not unknown:
                stack.pop()
                self.known.setdefault(id(top), self._decide(top))
            else:
                stack.extend(unknown)
        return self.known[id(node)]

    def _users(self, node: ir.Node) -> list[ir.Node]:
        return [use.node for output in node.outputs for use in output.uses()]

    def _moving_users(self, node: ir.Node) -> list[ir.Node]:
        return [user for user in self._users(node) if id(user) not in self.width]

    def _decide(self, node: ir.Node) -> bool:
        for user in self._users(node):
            if self.known.get(id(user), False) or self.width.get(id(user)) == _FLOAT:
                return True
        return any(output.is_graph_output() for output in node.outputs)


def _exists(node: ir.Node, narrow: ir.DataType, opset: int) -> bool:
    """Whether ONNX defines the operator for `narrow` wherever it has an FP32 output.

    `Range` has no half precision; convolutions and pooling have BF16 from opset 22 on.
    """
    name = f"tensor({'float16' if narrow == ir.DataType.FLOAT16 else 'bfloat16'})"
    if node.domain not in ("", "ai.onnx"):
        return True
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return True
    allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    for index, output in enumerate(node.outputs):
        formal = schema.outputs[min(index, len(schema.outputs) - 1)].type_str
        if output.dtype == _FLOAT and name not in allowed.get(formal, [formal]):
            return False
    return True


# Inputs whose type does not follow the data: anything goes (Cast, Shape, CastLike), or always FP32 (Resize's scales).
_ANY_TYPE = {
    "Cast": (0,),
    "CastLike": (0,),
    "Shape": (0,),
    "Size": (0,),
    "Resize": (1, 2),
    "Dropout": (1,),
    "IsNaN": (0,),
}


def _takes_float(node: ir.Node, index: int) -> bool:
    return not (node.domain == "" and index in _ANY_TYPE.get(node.op_type, ()))


def _retype_outputs(node: ir.Node, dtype: ir.DataType, model: ir.Model) -> None:
    if dtype == _FLOAT:
        return
    for output in node.outputs:
        if output.dtype == _FLOAT:
            output.type = ir.TensorType(dtype)
            if node.op_type == "Cast" and node.domain == "":
                node.attributes["to"] = ir.AttrInt64("to", int(dtype))
            if node.op_type == "ConstantOfShape" and node.domain == "":
                fill = node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else None
                array = np.zeros(1, np.float32) if fill is None else fill
                precision = "fp16" if dtype == ir.DataType.FLOAT16 else "bf16"
                node.attributes["value"] = ir.AttrTensor(
                    "value", ir.Tensor(array.astype(NUMPY[precision]), dtype=dtype)
                )


class _Casts:
    """Feeds each input in the width its node computes in; one cast a value, one rounded copy a weight."""

    def __init__(self, model: ir.Model, precision: str):
        self.model, self.precision, self.count = model, precision, 0
        self.made: dict[tuple[int, ir.DataType], ir.Value] = {}

    def feed(self, node: ir.Node, index: int, value: ir.Value, dtype: ir.DataType) -> None:
        if value.dtype != dtype:
            node.replace_input_with(index, self.converted(value, dtype))

    def feed_graph_outputs(self) -> None:
        """An output that was FP32 stays FP32 for the caller, under its own name."""
        for index, output in enumerate(self.model.graph.outputs):
            if output.dtype in _NARROW:
                name = output.name
                output.name = f"{name}_{self.precision}"
                wide = self.converted(output, _FLOAT)
                wide.name = name
                self.model.graph.outputs[index] = wide

    def converted(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        key = (id(value), dtype)
        if key not in self.made:
            constant = value.const_value if value.is_initializer() else None
            self.made[key] = self._weight(value, constant) if constant is not None else self._cast(value, dtype)
        return self.made[key]

    def _weight(self, value: ir.Value, constant: ir.TensorProtocol) -> ir.Value:
        name = f"{value.name}.{self.precision}"
        tensor = rounded(constant, self.precision, name)
        new = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
        self.model.graph.register_initializer(new)
        return new

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        self.count += 1
        suffix = "fp32" if dtype == _FLOAT else self.precision
        node = ir.node(
            "Cast",
            [value],
            {"to": int(dtype)},
            name=f"{value.name}/Cast_{suffix}",
            outputs=[ir.Value(name=f"{value.name}_as_{suffix}", type=ir.TensorType(dtype), shape=value.shape)],
        )
        producer = value.producer()
        if producer is None:
            first = next(iter(self.model.graph), None)
            self.model.graph.insert_before(first, node) if first is not None else self.model.graph.append(node)
        else:
            producer.append(node)
        return node.outputs[0]


def drop_unused_initializers(model: ir.Model) -> None:
    """Remove weights that nothing reads any more (the FP32 originals of rounded ones)."""
    outputs = set(model.graph.outputs)
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and value not in outputs:
            del model.graph.initializers[name]
