"""A network with the family's inputs and outputs that is exported in a second: classes of mean colours."""

from __future__ import annotations

import torch
from torch import nn

from export.recipe import ModuleRecipe
from zoo.resnet50.network import Classifier
from zoo.resnet50.recipe import recipe_of


class SmallNetwork(nn.Module):
    """Normalised float `[B,3,224,224]` to logits `[B,1000]` and embedding `[B,2048]`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3 * 49, 2048)
        self.fc = nn.Linear(2048, 1000)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        means = nn.functional.avg_pool2d(x, 32).flatten(1)
        embedding = torch.relu(self.embed(means))
        return 30 * self.fc(embedding), embedding


def small() -> ModuleRecipe:
    """The recipe, for `--recipe tests.runtime.cpp.stand_in:small`."""
    recipe = recipe_of(None)
    recipe.name = "small"
    recipe.build = lambda: Classifier(SmallNetwork())  # type: ignore[arg-type]
    return recipe
