"""Faster libraries for what Pillow does too, where they are installed: the same pixels, sooner.

Chosen by `python -m bench.codecs` (its result and table are in `bench/report/`): fpng writes a PNG some twenty times as
fast as Pillow, simplejpeg reads a JPEG one and a half times as fast. Both are small wheels without a library of the
system's. Pillow stays the judge of what is a picture: whatever one of them refuses is given to it.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

import numpy as np


@functools.cache
def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def in_use() -> dict[str, str]:
    """What reads JPEG and writes PNG in this Python."""
    return {
        "JPEG": "simplejpeg" if _module("simplejpeg") else "Pillow",
        "PNG": "fpng" if _module("fpng") else "Pillow",
    }


def decode_jpeg(data: bytes, size: tuple[int, int], shrink: int) -> np.ndarray | None:
    """The RGB pixels of a JPEG of `size` (width, height), uint8 `[ceil(height / shrink), ceil(width / shrink), 3]`.

    `shrink` is 1, 2, 4 or 8. Slow DCT and smooth upsampling, as Pillow has them, so that the pixels are equal. None
    where simplejpeg is not installed, finds anything wrong with the file, or sees another size than was given: then it
    is for Pillow to read.
    """
    simplejpeg = _module("simplejpeg")
    if simplejpeg is None:
        return None
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != size:
            return None
        least = {"min_width": -(-width // shrink), "min_height": -(-height // shrink)} if shrink > 1 else {}
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, **least)
    except ValueError:  # all that it raises for files
        return None
    return pixels


def encode_png(image: np.ndarray) -> bytes | None:
    """uint8 `[H,W,3]` as PNG, or None where fpng is not installed."""
    fpng = _module("fpng")
    if fpng is None:
        return None
    encoded: bytes = fpng.from_ndarray(np.ascontiguousarray(image))
    return encoded
