"""Fixtures of the engine tests: micro exports, and the TensorRT-RTX that builds ahead of time."""

from __future__ import annotations

from functools import lru_cache

import pytest

from engines.validation import Validation
from runtime.flavors import TENSORRT_RTX, Flavor, find_flavor
from tests.export.micro import micro_answers


@lru_cache(maxsize=1)
def _rtx() -> Flavor:
    return find_flavor(TENSORRT_RTX)


@pytest.fixture
def rtx() -> Flavor:
    """TensorRT-RTX, or a skipped test where it cannot build."""
    if not _rtx().can_build:
        pytest.skip(f"needs TensorRT-RTX: {_rtx().reason}")
    return _rtx()


@pytest.fixture(scope="session")
def validation() -> Validation:
    """Two sample pictures with the FP32 reference's answers."""
    feed, expected = micro_answers()
    return Validation({"image": feed["image"][:2]}, {"dog": expected["dog"][:2]}, "psnr", 30.0, "PyTorch FP32 eager")
