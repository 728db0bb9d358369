"""How far two pictures are apart."""

from __future__ import annotations

import math

import numpy as np

from runtime.errors import InputError

PEAK = 255.0


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over two uint8 arrays of one shape: `10·log10(255² / mean((a-b)²))`.

    `inf` when they are equal. Raises InputError for another dtype, different shapes or no pixels.
    """
    _check(a, b)
    return _psnr(a, b)


def psnr_each(a: np.ndarray, b: np.ndarray) -> list[float]:
    """PSNR in dB of each image of two uint8 batches `[B,H,W,C]`; raises InputError as `psnr` does."""
    _check(a, b)
    if a.ndim != 4:
        raise InputError(f"PSNR of each image needs batches [B,H,W,C]; arrays of shape {list(a.shape)} were given")
    return [_psnr(one, other) for one, other in zip(a, b, strict=True)]


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    difference = a.astype(np.int32) - b
    # Summed as integers: exact, and the same on every machine.
    squares = int(np.sum(difference * difference, dtype=np.int64))
    return math.inf if squares == 0 else 10 * math.log10(PEAK * PEAK * a.size / squares)


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if a.dtype != np.uint8 or b.dtype != np.uint8:
        raise InputError(
            f"PSNR is over uint8 images; {a.dtype} and {b.dtype} were given: round and clip to 0..255 first"
        )
    if a.shape != b.shape:
        raise InputError(f"PSNR needs images of one shape; {list(a.shape)} and {list(b.shape)} were given")
    if a.size == 0:
        raise InputError(f"PSNR needs at least one pixel; arrays of shape {list(a.shape)} were given")
