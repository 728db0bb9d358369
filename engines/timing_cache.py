"""TensorRT's timing cache as a file, with its hash before it: TensorRT itself does not see every flipped bit.

Needs nothing but the runtime room: the process that builds reads and writes it.
"""

from __future__ import annotations

import hashlib
import os

from runtime.files import write_bytes

_MAGIC = b"cat2dog timing cache 1\n"
_HASH_BYTES = 32
_MOST_BYTES = 256 << 20


def read_timing_cache(path: str | os.PathLike[str]) -> bytes:
    """What `write_timing_cache` was given; nothing where it is missing, damaged or of another writer.

    Then everything is measured afresh, which costs time and no correctness; a damaged time would choose a slow tactic.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError:
        return b""
    start = len(_MAGIC) + _HASH_BYTES
    data = content[start:]
    sound = len(content) <= _MOST_BYTES and content[: len(_MAGIC)] == _MAGIC
    return data if sound and hashlib.sha256(data).digest() == content[len(_MAGIC) : start] else b""


def write_timing_cache(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write what TensorRT measured, whole or not at all. Raises OSError where it cannot be written."""
    write_bytes(path, b"".join((_MAGIC, hashlib.sha256(data).digest(), data)))
