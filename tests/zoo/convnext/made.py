"""What the tests share: a tiny network, drawn pictures, and a recipe of both."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch

from export.recipe import ModuleRecipe
from zoo.convnext.config import TINY
from zoo.convnext.data import Data, synthetic
from zoo.convnext.loop import Plan, train_row
from zoo.convnext.model import ConvNeXt
from zoo.convnext.recipe import seeded_recipe

CLASSES = 4
SMALL = replace(TINY, classes=CLASSES)


def tiny() -> ModuleRecipe:
    """A recipe for the command line."""
    return seeded_recipe(replace(TINY, activation="fastswish"))


@lru_cache(maxsize=1)
def drawn() -> Data:
    return synthetic(24, 8, CLASSES)


def tensors(part) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(part.images), torch.from_numpy(part.labels)


def trained(state: Path, epochs: int = 6) -> ConvNeXt:
    """A few seconds of training."""
    model, _ = train_row("vanilla", SMALL, drawn(), Plan(epochs, 8, "cpu"), state, lambda line: None)
    return model.eval()
