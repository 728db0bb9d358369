"""The FP32 reference of a recipe, as a runner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from export.recipe import Recipe
from runtime.runner import TensorSpec


class ReferenceRunner:
    """The FP32 reference as a runner."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.inputs: tuple[TensorSpec, ...] = tuple(recipe.inputs)
        self.outputs: tuple[TensorSpec, ...] = tuple(recipe.outputs)

    def infer(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What FP32 PyTorch answers."""
        return self.recipe.reference(feed)

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> ReferenceRunner:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()
