"""The safetensors format: 8 bytes of header length, a JSON header, then raw little-endian tensors.

Written here rather than by the library because weights of 9 GB are streamed, one tensor in memory at a time, and
because a header from a stranger is checked before any memory is touched.
Format: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime.errors import InputError, ToolchainError

_MAX_HEADER_BYTES = 100_000_000  # the format's own bound
_MAX_DIMENSIONS = 16
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its dtype as the format writes it, its shape, and where its bytes are in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_entries(path: str | os.PathLike[str]) -> dict[str, Entry]:
    """Read and check the header alone: sizes, offsets in range, nothing overlapping, file as long as it says.

    Raises InputError, in one line, for whatever is not a sound safetensors file.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise InputError(f"{path} is empty; expected safetensors weights: copy or make it again")
            start = file.read(8)
            if foreign := _foreign_format(start):
                raise InputError(f"{path} is {foreign}, not safetensors; import it with: cat2dog convert")
            if size < 8:
                raise InputError(f"{path} has {size} bytes, too few for safetensors: copy or make it again")
            (length,) = struct.unpack("<Q", start)
            if length > _MAX_HEADER_BYTES:
                raise InputError(f"{path} is not safetensors: its header would be {length} bytes long")
            if 8 + length > size:
                raise InputError(f"{path} is truncated: it has {size} bytes, its header alone needs {8 + length}")
            header = file.read(length)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; expected safetensors weights") from None
    try:
        parsed: Any = json.loads(header)
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not safetensors: its header is not JSON") from None
    if not isinstance(parsed, dict):
        raise InputError(f"{path} is not safetensors: its header is not a JSON object")
    parsed.pop("__metadata__", None)
    entries = {name: _entry(path, name, value, 8 + length) for name, value in parsed.items()}
    _check_layout(path, entries, 8 + length, size)
    return entries


def _foreign_format(start: bytes) -> str | None:
    if start.startswith(b"PK\x03\x04"):
        return "a zip archive (as torch.save writes)"
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and start[2:] != bytes(6):
        return "a pickle"
    return None


def _entry(path: Path, name: str, value: Any, base: int) -> Entry:
    wrong = InputError(f"{path} is not safetensors: the entry of tensor {name[:80]!r} is malformed")
    if not isinstance(value, dict):
        raise wrong
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str) or not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise wrong
    if dtype not in _DTYPES:
        raise InputError(f"{path}: tensor {name[:80]!r} is {dtype[:20]!r}; expected one of {', '.join(_DTYPES)}")
    entry = Entry(dtype, tuple(shape), base + offsets[0], base + offsets[1])
    if math.prod(shape) * _DTYPES[dtype].itemsize != entry.end - entry.start:
        raise InputError(
            f"{path}: tensor {name[:80]!r} is {dtype} {list(shape)} but has {entry.end - entry.start} bytes: "
            "the file is damaged"
        )
    return entry


def _sizes(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= _MAX_DIMENSIONS
        and all(type(number) is int and 0 <= number < 1 << 48 for number in value)
    )


def _check_layout(path: Path, entries: Mapping[str, Entry], base: int, size: int) -> None:
    end = base
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != end:
            what = "overlaps the one before it" if entry.start < end else "leaves a gap before it"
            raise InputError(f"{path} is damaged: tensor {name[:80]!r} {what}")
        end = entry.end
    if end > size:
        raise InputError(f"{path} is truncated: it has {size} bytes, its header promises {end}; copy or make it again")
    if end < size:
        raise InputError(f"{path} is damaged: it has {size} bytes, its header promises {end}")


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
                file.write(memoryview(tensor.detach().to(torch.float32).contiguous().numpy()).cast("B"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ToolchainError(
            f"cannot write {path.name}: {error.strerror or error}; free some space or choose another place"
        ) from None
    if places:
        raise ValueError(f"tensors that never came: {', '.join(places)}")
