"""The header of a safetensors file, checked before any memory is touched: it may come from a stranger. No torch here.

The format is 8 bytes of header length, a JSON header, then raw little-endian tensors:
https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from runtime.errors import InputError

# The format itself allows 100 MB, which takes seconds and gigabytes to parse; this is room for 60,000 tensors.
_MAX_HEADER_BYTES = 8 << 20
_MAX_DIMENSIONS = 16
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


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
    if dtype not in ITEM_BYTES:
        raise InputError(f"{path}: tensor {name[:80]!r} is {dtype[:20]!r}; expected one of {', '.join(ITEM_BYTES)}")
    entry = Entry(dtype, tuple(shape), base + offsets[0], base + offsets[1])
    if math.prod(shape) * ITEM_BYTES[dtype] != entry.end - entry.start:
        raise InputError(
            f"{path}: tensor {name[:80]!r} is {dtype} {list(shape)} but has {entry.end - entry.start} bytes: "
            "the file is damaged"
        )
    return entry


def _sizes(value: Any) -> TypeGuard[list[int]]:
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
