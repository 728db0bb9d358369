"""Weights out of an ONNX file, for an engine that takes new ones: the graph stays, what was learnt changes.

`runtime.refit` puts them in place. Whether the new file is of the engine's own graph tells its structure's hash,
which the engine's key has as the option `refit`.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from engines.lowering import load
from runtime.engine_file import engine_manifest
from runtime.errors import InputError

if TYPE_CHECKING:
    from runtime.refit import Refitted
    from runtime.tensorrt_runner import TensorRTRunner

OPTION = "refit"
_WEIGHTS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
# Weights are handed over from memory; more than this is no network of ours.
_MOST_BYTES = 64 << 30


def structure_sha256(onnx: str | os.PathLike[str]) -> str:
    """Of all but the weights of a graph: 16 hex digits that two exports of one module share, whatever it learnt."""
    model = load(Path(onnx))
    digest = hashlib.sha256()
    for name, value in sorted(model.graph.initializers.items()):
        tensor = value.const_value
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
        if tensor is not None and tensor.dtype not in _WEIGHTS:
            digest.update(tensor.numpy().tobytes())
    for node in model.graph.all_nodes():
        attributes = sorted(f"{name}={_plain(attribute)}" for name, attribute in node.attributes.items())
        names = [
            [value.name if value is not None else "" for value in values] for values in (node.inputs, node.outputs)
        ]
        digest.update(f"{node.domain} {node.op_type} {names} {attributes}\n".encode())
    return digest.hexdigest()[:16]


def weights_of(onnx: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The floating-point initializers of a graph, by name. Raises InputError for a file that is no ONNX."""
    model = load(Path(onnx))
    tensors = {name: value.const_value for name, value in model.graph.initializers.items() if value.dtype in _WEIGHTS}
    if sum(tensor.nbytes for tensor in tensors.values() if tensor is not None) > _MOST_BYTES:
        raise InputError(f"the weights of {onnx} are over {_MOST_BYTES >> 30} GiB")
    return {name: tensor.numpy() for name, tensor in tensors.items() if tensor is not None}


def refit_engine(runner: TensorRTRunner, engine: str | os.PathLike[str], onnx: str | os.PathLike[str]) -> Refitted:
    """The weights of `onnx` into `runner`, which runs `engine`; the engine's file stays as it is.

    Raises InputError where the engine was not built for that, or of another graph.
    """
    built = engine_manifest(engine).key.options.get(OPTION)
    if not built:
        raise InputError(f"{engine} takes no new weights: build it with --refit")
    if (given := structure_sha256(onnx)) != built:
        raise InputError(
            f"{onnx} is of another graph ({given}) than {engine} ({built}): give an export of the same module in the "
            "same precision"
        )
    return runner.refit(weights_of(onnx))


def _plain(attribute: ir.Attr) -> str:
    value = attribute.value
    if isinstance(value, ir.TensorProtocol):
        return hashlib.sha256(value.numpy().tobytes()).hexdigest()
    return str(value)
