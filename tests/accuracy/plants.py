"""Faults planted in a sound graph, each what a wrong export, lowering or precision would do."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx_ir as ir

from accuracy.candidates import lowered, lowered_reference
from engines.lowering import load
from export.export import export

FLOAT, FLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16


@lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="cat2dog-plants-")


@lru_cache(maxsize=1)
def recipe():
    """cat2dog with 64 tokens of 64 channels and 4 blocks, made as `cat2dog init` makes the large ones."""
    from cat2dog.config import Config
    from cat2dog.initialise import initialise
    from cat2dog.recipe import Cat2DogRecipe

    root = Path(_folder().name)
    initialise(Config(resolution=64, patch=8, width=64, depth=4, heads=2), 0, root / "models" / "micro-64")
    return Cat2DogRecipe(root / "models" / "micro-64", root / "reference")


@lru_cache(maxsize=3)
def neutral(precision: str) -> Path:
    """The micro checkpoint as it is exported."""
    return export(recipe(), Path(_folder().name) / f"micro-64_{precision}.onnx", precision).path


@lru_cache(maxsize=3)
def graph(precision: str) -> Path:
    """Its decomposed graph, batch 1."""
    made = lowered_reference if precision == "fp32" else lowered
    return made(neutral(precision), "decomposed")


def changed(source: Path, name: str, *changes) -> Path:
    """A copy of `source` beside it, as `changes` (functions of a model) leave it."""
    model = load(source)
    for change in changes:
        change(model)
    target = source.with_name(f"{name}.onnx")
    ir.save(model, target)
    return target


def node(model: ir.Model, name: str) -> ir.Node:
    """The one node of that name."""
    (found,) = (each for each in model.graph if each.name == name)
    return found


def scale_weight(weight: str, factor: float):
    """Multiply an initializer."""

    def change(model: ir.Model) -> None:
        values = [v for n, v in model.graph.initializers.items() if n == weight or n == f"{weight}.fp16"]
        assert len(values) == 1
        tensor = values[0].const_value
        array = (tensor.numpy().astype(np.float32) * factor).astype(tensor.numpy().dtype)
        values[0].const_value = ir.Tensor(array, name=values[0].name)

    return change


def narrow_norm(module: str):
    """Compute a norm made of Pow, ReduceMean, ... in FP16: what leaves it is widened again."""

    def change(model: ir.Model) -> None:
        members = [each for each in model.graph if (each.name or "").startswith(f"{module}/")]
        cast_of: dict[ir.Value, ir.Value] = {}
        for each in members:
            for index, value in enumerate(each.inputs):
                if value is not None and value.dtype == FLOAT and value.producer() not in members:
                    if value not in cast_of:
                        cast_of[value] = _cast(model, value, FLOAT16, members[0])
                    each.replace_input_with(index, cast_of[value])
        for each in members:
            each.outputs[0].type = ir.TensorType(FLOAT16)
        last = members[-1]
        readers = list(last.outputs[0].uses())
        wide = ir.node("Cast", [last.outputs[0]], {"to": int(FLOAT)}, name=f"{module}.widened")
        wide.outputs[0].name, wide.outputs[0].type = f"{module}.widened.out", ir.TensorType(FLOAT)
        model.graph.insert_after(last, wide)
        for use in readers:
            use.node.replace_input_with(use.idx, wide.outputs[0])

    return change


def _cast(model: ir.Model, value: ir.Value, to: ir.DataType, before: ir.Node) -> ir.Value:
    new = ir.node("Cast", [value], {"to": int(to)}, name=f"{value.name}.narrowed")
    new.outputs[0].name, new.outputs[0].type = f"{value.name}.narrowed.out", ir.TensorType(to)
    model.graph.insert_before(before, new)
    return new.outputs[0]


def swap_rope_halves(concat: str):
    """Put the second half of the turned channels first."""

    def change(model: ir.Model) -> None:
        target = node(model, concat)
        first, second = target.inputs
        target.replace_input_with(0, second)
        target.replace_input_with(1, first)

    return change


def plain_softmax(softmax: str):
    """Exp over its sum, without taking the row's largest off first, in FP16."""

    def change(model: ir.Model) -> None:
        old = node(model, softmax)
        logits = _cast(model, old.inputs[0], FLOAT16, old)
        axes = ir.Value(name=f"{softmax}.axes", const_value=ir.Tensor(np.array([-1], np.int64), name=f"{softmax}.axes"))
        model.graph.register_initializer(axes)
        exp = ir.node("Exp", [logits], name=f"{softmax}.Exp")
        total = ir.node("ReduceSum", [exp.outputs[0], axes], {"keepdims": 1}, name=f"{softmax}.Sum")
        share = ir.node("Div", [exp.outputs[0], total.outputs[0]], name=f"{softmax}.Div")
        for each in (exp, total, share):
            each.outputs[0].name, each.outputs[0].type = f"{each.name}.value", ir.TensorType(FLOAT16)
        wide = ir.node("Cast", [share.outputs[0]], {"to": int(FLOAT)}, name=f"{softmax}.widened")
        output, name = wide.outputs[0], old.outputs[0].name
        output.type = ir.TensorType(FLOAT)
        model.graph.insert_before(old, [exp, total, share, wide])
        old.outputs[0].replace_all_uses_with(output)
        model.graph.remove(old, safe=True)
        output.name = name

    return change
