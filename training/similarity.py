"""Structural similarity of two pictures."""

from __future__ import annotations

import cv2
import numpy as np

from runtime.errors import InputError

_SIGMA = 1.5
_REACH = 5  # the window is 11 pixels wide
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Mean SSIM of two uint8 pictures `[H,W,3]`, over pixels and channels (Wang et al., 2004, IEEE TIP 13:4).

    Gaussian window of 11 pixels and deviation 1.5, population moments, borders of 5 pixels left out: scikit-image's
    `structural_similarity(gaussian_weights=True, use_sample_covariance=False)`. Raises InputError for other arrays.
    """
    if (
        a.shape != b.shape
        or a.ndim != 3
        or min(a.shape[:2]) <= 2 * _REACH
        or {a.dtype, b.dtype} != {np.dtype(np.uint8)}
    ):
        raise InputError(
            f"SSIM needs two uint8 pictures of one shape, over {2 * _REACH} pixels wide; "
            f"{a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)} were given"
        )

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, (2 * _REACH + 1,) * 2, _SIGMA, borderType=cv2.BORDER_REFLECT)

    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)) / (
        (mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2)
    )
    return float(similarity[_REACH:-_REACH, _REACH:-_REACH].mean())
