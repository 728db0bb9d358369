"""Measures against other implementations, and the judge as Polygraphy's comparison function."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
from polygraphy.comparator import IterationResult
from skimage.metrics import structural_similarity

from accuracy.judged import judged, write_script
from accuracy.measures import measure, relative_error
from accuracy.similarity import fits_ssim, ssim
from runtime.errors import InputError


@pytest.fixture
def pictures():
    generator = np.random.default_rng(0)
    one = generator.integers(0, 256, (2, 29, 37, 3), dtype=np.uint8)
    other = np.clip(one.astype(int) + generator.integers(-9, 10, one.shape), 0, 255).astype(np.uint8)
    return one, other


def test_ssim_is_that_of_scikit_image(pictures):
    one, other = (batch[0] for batch in pictures)
    expected = structural_similarity(
        one, other, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(one, other) == pytest.approx(expected, abs=1e-9)
    assert ssim(one, one) == 1.0
    assert not fits_ssim((10, 64, 3)) and fits_ssim((11, 11, 3))


def test_pictures_and_numbers(pictures):
    one, other = pictures
    measures = measure(one, other)
    assert measures.grey_levels == 9 and 30 < measures.psnr_db < 40 and 0 < measures.ssim < 1
    numbers = measure(one.astype(np.float32), other.astype(np.float32))
    assert numbers.psnr_db is numbers.ssim is numbers.grey_levels is None
    assert numbers.relative_error == pytest.approx(measures.relative_error)
    assert measure(one, one).psnr_db == math.inf


def test_relative_error():
    expected = np.array([3.0, 4.0], np.float32)
    assert relative_error(expected + np.array([0.0, 0.5], np.float32), expected) == pytest.approx(0.1)
    assert relative_error(np.array([np.nan, 4.0]), expected) == math.inf
    assert relative_error(np.array([np.inf, 4.0]), expected) == math.inf
    masked = np.array([-np.inf, 1.0])
    assert relative_error(masked, masked) == 0 and relative_error(np.array([-np.inf, 1.1]), masked) < 0.11
    assert relative_error(np.zeros(2), np.zeros(2)) == 0 and relative_error(expected, np.zeros(2)) == math.inf
    assert measure(np.array([[np.nan, 1]], np.float16), np.ones((1, 2), np.float16)).not_finite == 1


def test_polygraphy_compares_by_the_script(pictures, tmp_path, capsys):
    one, other = pictures
    write_script(tmp_path / "compare.py", "psnr", 30.0)
    spec = importlib.util.spec_from_file_location("compare", tmp_path / "compare.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    results = IterationResult({"dog": one}), IterationResult({"dog": other})
    assert script.compare_outputs(*results) == {"dog": True}
    assert "dog: psnr 3" in capsys.readouterr().out
    assert judged("psnr", 60.0)(*results) == {"dog": False}


def test_what_cannot_be_judged_is_said():
    with pytest.raises(InputError, match="'ssim' is not one of psnr, cosine, top1"):
        judged("ssim", 0.9)
    with pytest.raises(InputError, match="are missing"):
        judged("cosine", 0.9)(IterationResult({"a": np.ones(2)}), IterationResult({"b": np.ones(2)}))
