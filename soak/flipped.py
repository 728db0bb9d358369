"""A single bit that flips while a file lies there, with size and time stamps as they were: seen before it is used."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engines.build import build
from engines.timing_cache import read_timing_cache, write_timing_cache
from runtime.engine_file import open_engine
from runtime.errors import EngineMismatch, InputError
from runtime.manifest import manifest_path
from soak.result import promise

if TYPE_CHECKING:
    from soak.cache import Shop


def flipped_bits(shop: Shop, each: int) -> dict[str, int]:
    """Flip `each` bits all over plan, manifest, ONNX, external data and timing cache, in turn; how many were seen."""
    root = shop.folder / "flipped"
    request = replace(shop.requests[0], root=root)
    engine = build(request).path
    data = request.onnx.with_name(f"{request.onnx.name}.data")
    forced = replace(request, force=True)
    cache = shop.folder / "timing.cache"
    write_timing_cache(cache, os.urandom(20_000))
    return {
        "plan": _seen(engine, each, lambda: _loads(shop, engine)),
        "manifest": _seen(manifest_path(engine), each, lambda: _loads(shop, engine)),
        "onnx": _seen(request.onnx, each, lambda: _builds(forced)),
        "external_data": _seen(data, each, lambda: _builds(forced)),
        "timing_cache": _seen(cache, each, lambda: read_timing_cache(cache) != b""),
    }


def _seen(path: Path, each: int, is_used: Callable[[], bool]) -> int:
    """Flip one bit in each of `each` regions of the file, first and last byte included, in turn."""
    sound, stamps = path.read_bytes(), path.stat()
    seen = 0
    for number in range(each):
        at = number * (len(sound) - 1) // max(1, each - 1)
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(bytes([sound[at] ^ (1 << number % 8)]))
        os.utime(path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
        promise(not is_used(), f"bit {number % 8} of byte {at} of {path.name} flipped, and it was used")
        seen += 1
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(sound[at : at + 1])
        os.utime(path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    promise(is_used(), f"{path.name} is refused as it was written")
    return seen


def _loads(shop: Shop, engine: Path) -> bool:
    try:
        with open_engine(engine, shop.flavor, None):
            return True
    except EngineMismatch:
        return False


def _builds(request) -> bool:  # type: ignore[no-untyped-def]
    try:
        return build(request).fresh
    except InputError as error:
        promise("altered" in str(error), f"a flipped bit is told badly: {error}")
        return False
