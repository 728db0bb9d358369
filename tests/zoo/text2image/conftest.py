"""Opened once for each run of the tests; a test that changes a pipeline opens one of its own."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers", reason="diffusers is in the extra text2image, which `make test` installs")

from tests.zoo.text2image import tiny
from zoo.text2image.loading import open_pipeline, quiet_diffusers
from zoo.text2image.painter import Painter

FAMILIES = {"unet": tiny.stable_diffusion, "transformer": tiny.stable_diffusion_3}


@pytest.fixture(scope="session", autouse=True)
def quiet():
    quiet_diffusers()


@pytest.fixture(scope="session", params=list(FAMILIES))
def painter(request):
    """A painter of each family of denoisers."""
    return Painter(open_pipeline(str(FAMILIES[request.param]())))


@pytest.fixture(scope="session")
def unet_painter():
    return Painter(open_pipeline(str(tiny.stable_diffusion())))
