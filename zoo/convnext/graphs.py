"""ONNX files of one batch size, for builders that take no other."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from runtime.errors import InputError


def fixed_batch(path: Path, batch: int, target: Path) -> Path:
    """Write `target`, the graph of `path` with its batch fixed. Raises InputError for a file that is not ONNX."""
    try:
        model = onnx.load(path)
    except (OSError, ValueError, DecodeError, onnx.checker.ValidationError) as error:
        raise InputError(f"{path} is no ONNX file that can be read ({str(error)[:200]})") from error
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        first.Clear()
        first.dim_value = batch
    del model.graph.value_info[:]  # shapes between them were of any batch
    onnx.save(model, target, save_as_external_data=True, location=f"{target.name}.data")
    return target
