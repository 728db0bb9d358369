"""Weights that are read, turned and rounded only while they are written, one tensor at a time.

A checkpoint is memory-mapped and an ONNX file is streamed out, so exporting needs the graph in memory and no copy of
the weights.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from runtime.errors import InputError

NUMPY = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16), "fp32": np.dtype(np.float32)}
IR_TYPE = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16, "fp32": ir.DataType.FLOAT}


def transposed(tensor: ir.TensorProtocol, perm: tuple[int, ...], name: str) -> ir.LazyTensor:
    """`tensor` with its axes permuted when it is read."""
    sizes = list(tensor.shape)

    def read() -> ir.Tensor:
        return ir.Tensor(np.ascontiguousarray(np.transpose(tensor.numpy(), perm)), name=name)

    return ir.LazyTensor(read, tensor.dtype, ir.Shape([sizes[axis] for axis in perm]), name=name)


def rounded(tensor: ir.TensorProtocol, precision: str, name: str) -> ir.LazyTensor:
    """An FP32 `tensor` rounded to `precision` when it is read.

    Infinities stay what they are, and FP32's largest number, with which masks are filled, becomes the largest of
    `precision`. Raises InputError, naming the tensor and its largest value, where FP16 would turn any other weight
    into infinity.
    """

    def read() -> ir.Tensor:
        wide = tensor.numpy()
        with np.errstate(over="ignore"):
            narrow = wide.astype(NUMPY[precision])
        if not np.isfinite(narrow).all():
            _mend_overflow(wide, narrow, precision, name)
        return ir.Tensor(narrow, dtype=IR_TYPE[precision], name=name)

    return ir.LazyTensor(read, IR_TYPE[precision], tensor.shape, name=name)


def _mend_overflow(wide: np.ndarray, narrow: np.ndarray, precision: str, name: str) -> None:
    lost = np.isfinite(wide) & ~np.isfinite(narrow)
    extreme = lost & (np.abs(wide) == np.finfo(np.float32).max)
    narrow[extreme] = np.copysign(ml_dtypes.finfo(NUMPY[precision]).max, wide[extreme])
    lost &= ~extreme
    if precision == "fp16" and lost.any():
        raise InputError(
            f"weight '{name}' reaches {float(np.abs(wide[lost]).max()):.3g}, over FP16's 65504: "
            "keep its module FP32 by an island, or use bf16"
        )


def fold_weight_transposes(model: ir.Model) -> int:
    """Replace `Transpose(weight)` by a weight stored transposed; returns how many.

    PyTorch keeps a Linear as [out, in]; stored as [in, out] the engine builder has nothing left to turn.
    """
    folded = 0
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type == "Transpose" and node.domain == "" else None
        if (
            source is None
            or source.const_value is None
            or not source.is_initializer()
            or source.graph is not model.graph
        ):
            continue
        perm = tuple(node.attributes["perm"].as_ints()) if "perm" in node.attributes else None
        if perm is None:
            perm = tuple(reversed(range(len(source.const_value.shape))))
        name = f"{source.name}.t"
        existing = model.graph.initializers.get(name)
        if existing is None:
            tensor = transposed(source.const_value, perm, name)
            existing = ir.Value(name=name, type=source.type, shape=tensor.shape, const_value=tensor)
            model.graph.register_initializer(existing)
        output = node.outputs[0]
        output.replace_all_uses_with(existing)
        model.graph.remove(node, safe=True)
        if not source.uses():
            del model.graph.initializers[source.name]
        folded += 1
    return folded
