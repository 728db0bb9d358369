"""The four activations that a ConvNeXt can have here."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# x (x + 42/13) / (81/13) meets x at 3 and -1/x^2 at -3; written to six places it is x (x + 3.230769) / 6.230769.
_SHIFT, _DIVISOR, _EDGE = 42 / 13, 81 / 13, 3.0


class FastSwish(nn.Module):
    """x above 3, x (x + 3.230769) / 6.230769 between -3 and 3, -1/x^2 below: near swish, without an exponential.

    Continuous everywhere; its slope is 1.48 just under 3 and 1 above, and 0.04 just above -3 and -0.07 under it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise, any shape and floating-point type."""
        # Each branch sees only what it is for: where() would pass on NaN from the gradient of 1/x^2 at 0.
        middle = x.clamp(-_EDGE, _EDGE)
        low = x.clamp(max=-_EDGE)
        parabola = middle * (middle + _SHIFT) / _DIVISOR
        return torch.where(x > _EDGE, x, torch.where(x < -_EDGE, -1 / (low * low), parabola))


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "hardswish": nn.Hardswish,
    "fastswish": FastSwish,
}


def activation(name: str) -> nn.Module:
    """The module of an activation of ACTIVATIONS; GELU is the one with tanh."""
    return nn.GELU(approximate="tanh") if name == "gelu" else ACTIVATIONS[name]()
