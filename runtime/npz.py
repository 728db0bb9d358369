"""numpy's `.npz`, read with every size known before memory is taken; nothing is unpickled."""

from __future__ import annotations

import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib

import numpy as np

_MOST_MEMBERS = 10_000
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# What zipfile, zlib and numpy are seen to raise on damaged files.
_DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    SyntaxError,
    RuntimeError,
    NotImplementedError,
    OverflowError,
    tokenize.TokenError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npz(path: str | os.PathLike[str], most_bytes: int, compressed: bool = False) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file, by name; together they have at most `most_bytes`.

    One that is not `compressed` has to hold them as they are, so that they are never larger than the file. Raises
    ValueError, in one line, for anything that `np.savez` would not have written.
    """
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("error")  # of names given twice, of headers of Python 2
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if len(members) > _MOST_MEMBERS or size > most_bytes:
                raise ValueError(f"it holds {len(members)} arrays of {size} bytes, more than {most_bytes}")
            kinds = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) if compressed else (zipfile.ZIP_STORED,)
            if any(member.compress_type not in kinds for member in members):
                raise ValueError("it is compressed in another way than expected")
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except (Warning, *_DAMAGED) as error:
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"there is no format {version} of arrays")
        shape, fortran, dtype = _HEADERS[version](file)
        if dtype.hasobject or any(side < 0 for side in shape):
            raise ValueError("it holds objects, which would be unpickled, or a negative size")
        size = math.prod(shape) * dtype.itemsize
        if size != member.file_size - file.tell():
            raise ValueError(f"an array of {size} bytes is said to lie in {member.file_size}")
        data = file.read(size)
        if len(data) != size:
            raise ValueError("it ends early")
    return np.frombuffer(bytearray(data), dtype).reshape(shape, order="F" if fortran else "C")
