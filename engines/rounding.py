"""Two answers that should be the same number for number, but for rounding."""

from __future__ import annotations

import numpy as np

from runtime.errors import ToolchainError

# Rounding of one operation, relative, and the step of the smallest numbers.
_ROUNDING = {"fp16": (2.0**-11, 2.0**-24), "bf16": (2.0**-8, 0.0)}


def check_rounded(
    what: str, expected: np.ndarray, got: np.ndarray, precision: str, roundings: float, advice: str
) -> None:
    """Raise ToolchainError, with the numbers, where `got` is further from `expected` than so many roundings.

    A rounding is one of the largest number of its row, since a row is what norms, products and sums go over.
    """
    relative, smallest = _ROUNDING[precision]
    if got.shape != expected.shape:
        raise ToolchainError(f"{what} have shape {got.shape}, the graph's {expected.shape}: {advice}")
    largest = np.abs(expected).max(axis=-1, keepdims=True)
    allowed = roundings * (relative * largest + smallest)
    off = np.abs(got - expected) - allowed
    if not np.isfinite(off).all() or off.max() > 0:
        place = tuple(int(index) for index in np.unravel_index(np.argmax(np.nan_to_num(off, nan=np.inf)), off.shape))
        bound = float(np.broadcast_to(allowed, off.shape)[place])
        raise ToolchainError(
            f"{what} are {got[place]:.6g} at {place} where the graph has {expected[place]:.6g}, expected within "
            f"{bound:.2g}: {advice}, and report this graph"
        )
