"""What is said of one output beside the verdict: pictures as pictures, everything as numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accuracy.similarity import fits_ssim, ssim
from runtime.judge import scores
from runtime.metrics import psnr


@dataclass(frozen=True)
class Measures:
    """The worst sample of each: relative error (0 is equal) and cosine; of pictures also PSNR in dB, SSIM, grey levels.

    `not_finite` counts values that are NaN or infinite, over all samples; with any, the errors are infinite.
    """

    relative_error: float
    cosine: float
    not_finite: int
    psnr_db: float | None = None
    ssim: float | None = None
    grey_levels: int | None = None


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    """`|got - expected| / |expected|`, Euclidean; inf where `got` is not finite or only `expected` is all zero."""
    a, b = got.astype(np.float64), expected.astype(np.float64)
    same = a == b  # an infinity that the reference has too, as masks do, is no error
    if not np.isfinite(a[~same]).all() or not np.isfinite(b[~same]).all():
        return float("inf")
    difference = float(np.linalg.norm(np.where(same, 0.0, a - np.where(same, 0.0, b))))
    length = float(np.linalg.norm(b[np.isfinite(b)]))
    return difference / length if length else (0.0 if difference == 0 else float("inf"))


def not_finite(array: np.ndarray) -> int:
    """How many values are NaN or infinite."""
    if array.dtype.kind in "iub":
        return 0
    return int(array.size - np.isfinite(array.astype(np.float32, copy=False)).sum())


def measure(got: np.ndarray, expected: np.ndarray) -> Measures:
    """Measures over a batch of samples, the first axis; the shapes are equal."""
    pairs = list(zip(got, expected, strict=True))
    errors = [relative_error(one, other) for one, other in pairs]
    numbers = Measures(max(errors), min(scores("cosine", {"": got}, {"": expected})), not_finite(got))
    if got.dtype != np.uint8 or expected.dtype != np.uint8:
        return numbers
    levels = max(int(np.abs(one.astype(np.int16) - other).max()) for one, other in pairs)
    similar = min(ssim(*pair) for pair in pairs) if fits_ssim(got.shape[1:]) else None
    return Measures(numbers.relative_error, numbers.cosine, 0, min(psnr(*pair) for pair in pairs), similar, levels)
