"""Constants that lowering adds to a graph: one of each, shared by every node that needs it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir


def constant(model: ir.Model, name: str, array: np.ndarray, dtype: ir.DataType) -> ir.Value:
    """The initializer `name`, made of `array` where the graph has none yet; a name stands for one content."""
    existing = model.graph.initializers.get(name)
    if existing is not None:
        return existing
    tensor = ir.Tensor(array, dtype=dtype, name=name)
    value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(array.shape), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def integers(model: ir.Model, name: str, numbers: Sequence[int]) -> ir.Value:
    """A list of INT64: axes, sizes, shapes."""
    return constant(model, name, np.array(numbers, np.int64), ir.DataType.INT64)
