"""Tensors of a safetensors file, mapped and streamed: weights of 9 GB pass through with one tensor in memory at a time.

Written here rather than by the library because the library holds all that it writes in memory.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cat2dog.safetensors_file import Entry
from runtime.errors import InputError, ToolchainError

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def map_tensors(path: str | os.PathLike[str], entries: Mapping[str, Entry]) -> dict[str, Tensor]:
    """Tensors of a checked file as views of one private memory map: nothing is read before it is used."""
    size = max((entry.end for entry in entries.values()), default=0)
    if size == 0:
        return {name: torch.empty(entry.shape, dtype=_DTYPES[entry.dtype]) for name, entry in entries.items()}
    try:
        whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    except RuntimeError as error:
        raise InputError(f"cannot map {path}: {str(error).splitlines()[0]}") from None
    tensors = {}
    for name, entry in entries.items():
        raw, dtype = whole[entry.start : entry.end], _DTYPES[entry.dtype]
        if entry.start % dtype.itemsize:  # the format does not promise alignment; torch wants it
            raw = raw.clone()
        tensors[name] = raw.view(dtype).reshape(entry.shape)
    return tensors


def write_fp32(path: Path, shapes: Mapping[str, tuple[int, ...]], tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Write FP32 tensors as they come, in any order; each of `shapes` must come once.

    Raises ToolchainError when the disk is full or cannot be written, ValueError when a tensor was not promised.
    """
    header, offset, places = {}, 0, {}
    for name, shape in shapes.items():
        end = offset + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
        places[name], offset = offset, end
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 64)  # so that tensors start aligned
    try:
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            if hasattr(os, "posix_fallocate"):  # a full disk shows now, not after gigabytes
                os.posix_fallocate(file.fileno(), 0, 8 + len(text) + offset)
            for name, tensor in tensors:
                start = places.pop(name, None)
                if start is None or tuple(tensor.shape) != tuple(shapes[name]):
                    raise ValueError(f"unexpected tensor {name} {tuple(tensor.shape)}")
                file.seek(8 + len(text) + start)
                file.write(tensor.detach().to(torch.float32).contiguous().numpy().data.cast("B"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ToolchainError(
            f"cannot write {path.name}: {error.strerror or error}; free some space or choose another place"
        ) from None
    if places:
        raise ValueError(f"tensors that never came: {', '.join(places)}")
