"""Structural similarity of two pictures, in numpy."""

from __future__ import annotations

import numpy as np

_SIGMA = 1.5
REACH = 5  # the window is 11 pixels wide
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def fits_ssim(shape: tuple[int, ...]) -> bool:
    """Whether a picture `[H,W,C]` is large enough for the window."""
    return len(shape) == 3 and min(shape[:2]) > 2 * REACH


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean SSIM of two uint8 pictures `[H,W,C]`, over pixels and channels (Wang et al., 2004, IEEE TIP 13:4).

    Gaussian window of 11 pixels and deviation 1.5, population moments, where the window lies inside: scikit-image's
    `structural_similarity(gaussian_weights=True, use_sample_covariance=False)`. The shapes are as `fits_ssim` wants.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x, variance_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    similar = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    return float((similar / ((mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2))).mean())


def _blurred(picture: np.ndarray) -> np.ndarray:
    offsets = np.arange(-REACH, REACH + 1)
    weights = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        size = picture.shape[axis] - 2 * REACH
        picture = sum(w * picture.take(range(i, i + size), axis) for i, w in enumerate(weights))
    return picture
