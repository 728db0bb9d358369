"""Weights that happen to be equal stay two."""

from __future__ import annotations

import torch
from torch import nn

from export.recipe import ModuleRecipe
from export.trace import trace
from runtime.runner import TensorSpec


class Twins(nn.Module):
    """Two scalars that are equal, and two norms as they are before training."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.one, self.other = nn.LayerNorm(8), nn.LayerNorm(8)

    def forward(self, x):
        return self.other(torch.relu(self.one(x) + self.first) * 2 + self.second)


def test_equal_weights_are_each_in_the_graph_and_used_by_their_own_nodes():
    spec = [TensorSpec("x", "float32", (-1, 8))]
    model = trace(ModuleRecipe("twins", Twins, spec, [TensorSpec("y", "float32", (-1, 8))]))
    weights = {"first", "second", "one.weight", "other.weight", "one.bias", "other.bias"}
    assert weights <= set(model.graph.initializers)
    users = {name: [use.node.name for use in model.graph.initializers[name].uses()] for name in weights}
    assert all(len(each) == 1 for each in users.values()), users
    assert users["one.weight"] != users["other.weight"] and users["first"] != users["second"]
