"""What the tests of denoisers share: tiny ones, their recipes, their exports, and a runner that is PyTorch."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

from export.export import export
from runtime.runner import TensorSpec, check_feed
from tests.zoo.text2image import tiny
from tests.zoo.text2image.conftest import FAMILIES
from zoo.text2image.loading import open_pipeline
from zoo.text2image.quantized import quantized
from zoo.text2image.recipe import denoiser_recipe
from zoo.text2image.request import Request

WIDTH, HEIGHT = 32, 24
ALL = {**FAMILIES, "sdxl": tiny.stable_diffusion_xl, "flux": tiny.flux}
REQUESTS = [Request("a cat", steps=6, seed=seed, width=WIDTH, height=HEIGHT) for seed in range(2)]


@lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="cat2dog-denoiser-")


@lru_cache(maxsize=4)
def opened(family: str):
    """A pipeline and the recipe of its denoiser."""
    pipeline = open_pipeline(str(ALL[family]()), "cpu")
    return pipeline, denoiser_recipe(pipeline, f"tiny {family}", WIDTH, HEIGHT)


@lru_cache(maxsize=4)
def exported(family: str, precision: str) -> Path:
    return export(opened(family)[1], Path(_folder().name) / f"{family}_{precision}.onnx", precision).path


@lru_cache(maxsize=4)
def in_int8(family: str) -> Path:
    target = Path(_folder().name) / f"{family}_int8.onnx"
    return quantized(exported(family, "fp32"), target, opened(family)[1].validation())


class Recording:
    """A runner that is the module itself, and keeps the batches it was given; `most` bounds them."""

    def __init__(self, recipe, most=None):
        self._recipe = recipe
        self.inputs = tuple(
            TensorSpec(spec.name, spec.dtype, spec.shape, (1, *spec.shape[1:]), (most or 8, *spec.shape[1:]))
            for spec in recipe.inputs
        )
        self.outputs = tuple(recipe.outputs)
        self.batches = []

    def infer(self, feed):
        check_feed(self.inputs, feed)
        self.batches.append(len(next(iter(feed.values()))))
        return self._recipe.reference(feed)

    def close(self):
        pass
