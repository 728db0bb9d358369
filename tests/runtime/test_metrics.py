from __future__ import annotations

import math

import numpy as np
import pytest

from runtime.errors import InputError
from runtime.metrics import psnr, psnr_each


def test_one_grey_level_everywhere():
    a = np.full((4, 4, 3), 100, np.uint8)
    assert psnr(a, a + 1) == pytest.approx(20 * math.log10(255))


def test_the_largest_difference_is_0_db():
    assert psnr(np.zeros((5, 7), np.uint8), np.full((5, 7), 255, np.uint8)) == pytest.approx(0)


def test_equal_images():
    a = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert psnr(a, a.copy()) == math.inf


def test_against_the_formula_in_float64():
    a, b = np.random.default_rng(0).integers(0, 256, (2, 113, 239, 3), np.uint8)
    mse = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    assert psnr(a, b) == psnr(b, a) == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-9)


def test_each_image_of_a_batch():
    a = np.zeros((3, 2, 2, 3), np.uint8)
    b = a + np.array([0, 1, 10], np.uint8)[:, None, None, None]
    assert psnr_each(a, b) == pytest.approx([math.inf, 48.1308, 28.1308], abs=1e-4)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros(3), np.zeros(3, np.uint8), "PSNR is over uint8 images; float64 and uint8 were given: round and clip"),
        (np.zeros(3, np.uint8), np.zeros(4, np.uint8), r"PSNR needs images of one shape; \[3\] and \[4\] were given"),
        (np.zeros(0, np.uint8), np.zeros(0, np.uint8), r"PSNR needs at least one pixel; arrays of shape \[0\]"),
    ],
)
def test_what_cannot_be_compared(a, b, message):
    for function in (psnr, psnr_each):
        with pytest.raises(InputError, match=message):
            function(a, b)


def test_each_needs_a_batch():
    with pytest.raises(InputError, match=r"needs batches \[B,H,W,C\]; arrays of shape \[2, 2, 3\] were given"):
        psnr_each(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8))
