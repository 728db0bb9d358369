"""Seeded weights, made once; torchvision, where it can be had."""

from __future__ import annotations

import pytest

from zoo.resnet50.weights import seeded


@pytest.fixture(scope="session")
def network():
    return seeded()
