"""torchvision's own resnet50, with the same weights: the same logits and embedding, to the last bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.plugin.conftest import CACHE, unpack_wheels

ROOT = Path(__file__).resolve().parents[3]
# Of torch 2.13. Never installed: packages that find it would import it, and fail.
WHEEL = ("torchvision==0.28.0",)


@pytest.mark.slow
def test_equal_to_torchvision():
    """Skips, with pip's words, where there is neither torchvision nor its wheel."""
    folder = unpack_wheels(WHEEL, CACHE / "torchvision")
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "tests.zoo.resnet50.torchvision_or_skip"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("equal to torchvision 0.28.0")
