"""What a cubin says of its kernels, read from its ELF sections (the layout that `cuobjdump -elf` shows)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_FORMAT_SIZED = 4
_PARAMETER = 0x17
_FRAME, _REGISTERS = 0x11, 0x2F


@dataclass(frozen=True)
class Parameter:
    """A kernel's argument: where it lies among them, and its size in bytes."""

    offset: int
    size: int


def sections(cubin: bytes) -> dict[str, bytes]:
    """Name and content of every section."""
    assert cubin[:5] == b"\x7fELF\x02", "a cubin is a 64-bit ELF file"
    (start,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", cubin, start + index * size) for index in range(count)]
    text = _content(cubin, headers[names])
    return {text[header[0] : text.index(b"\0", header[0])].decode(): _content(cubin, header) for header in headers}


def _content(cubin: bytes, header: tuple[int, ...]) -> bytes:
    nothing = header[1] == 8  # SHT_NOBITS
    return b"" if nothing else cubin[header[4] : header[4] + header[5]]


def kernels(cubin: bytes) -> set[str]:
    """Names of the kernels in a cubin."""
    return {name.removeprefix(".nv.info.") for name in sections(cubin) if name.startswith(".nv.info.")}


def parameters(cubin: bytes, kernel: str) -> list[Parameter]:
    """The arguments a kernel takes, in order."""
    info = sections(cubin)[f".nv.info.{kernel}"]
    found = {}
    at = 0
    while at < len(info):
        form, attribute, value = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == _FORMAT_SIZED:
            if attribute == _PARAMETER:
                _, ordinal, offset, flags = struct.unpack_from("<IHHI", info, at)
                found[ordinal] = Parameter(offset, flags >> 18)
            at += value
    return [found[ordinal] for ordinal in sorted(found)]


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread, and bytes of its stack (where spilled registers lie), of a cubin's largest kernel."""
    info = sections(cubin)[".nv.info"]
    found: dict[int, int] = {}
    at = 0
    while at < len(info):
        form, attribute, value = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == _FORMAT_SIZED:
            if attribute in (_FRAME, _REGISTERS):
                found[attribute] = max(found.get(attribute, 0), struct.unpack_from("<II", info, at)[1])
            at += value
    return found[_REGISTERS], found[_FRAME]
