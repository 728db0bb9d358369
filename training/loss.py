"""How far a drawn picture is from the dog it should be."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

EDGE_WEIGHT = 0.5
COARSE_WEIGHT = 0.5
_EPSILON = 1e-3


def _charbonnier(difference: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Mean of sqrt(d^2 + eps^2): L1 that is smooth at 0 (Charbonnier et al., 1994)."""
    return torch.sqrt(difference.square() + _EPSILON**2).mean()


def picture_loss(dog: Float[Tensor, "b 3 r r"], target: Float[Tensor, "b 3 r r"]) -> Float[Tensor, ""]:
    """Charbonnier over pixels, over differences of neighbours (outlines stay sharp), and over shrunken pictures.

    All are taken of `dog - target`, both in -1..1. L1 keeps to one answer where several are possible, and L2 would
    draw their blurred mean.
    """
    difference = dog.float() - target.float()
    across = difference[..., :, 1:] - difference[..., :, :-1]
    down = difference[..., 1:, :] - difference[..., :-1, :]
    loss = _charbonnier(difference) + EDGE_WEIGHT * (_charbonnier(across) + _charbonnier(down))
    for factor in (4, 16):
        loss = loss + COARSE_WEIGHT / 2 * _charbonnier(F.avg_pool2d(difference, factor))
    return loss
