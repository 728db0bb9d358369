"""INT8 while training: activations and weights rounded as Q/DQ rounds them, gradients passed straight through.

Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons" (2013). The scheme is that of
`zoo.quantizer`: symmetric, weights by output channel, activations by tensor; what is trained with this is what the
Q/DQ graph computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from runtime.errors import InputError
from zoo.convnext.model import ConvNeXt

_LEVELS = 127
# How much of a range that is being learnt each batch replaces.
_PART = 0.05
_LEAST = 1e-8
SCHEMES = ("pointwise", "all")


def layers_of(model: ConvNeXt, scheme: str = "all") -> list[str]:
    """Paths of what is quantized; `pointwise` leaves out the depthwise convolutions. Stem and head stay as they are:
    the one sees the picture itself, the other is a 40,000th of the arithmetic.

    Raises InputError for another scheme.
    """
    if scheme not in SCHEMES:
        raise InputError(f"scheme '{scheme}'; expected one of {', '.join(SCHEMES)}")
    chosen = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    without = ("stem.patches", "depthwise") if scheme == "pointwise" else ("stem.patches",)
    return [name for name in chosen if not name.endswith(without)]


class Ranges:
    """The largest magnitudes of each layer's activation, by path; `state` says what is done with what passes by."""

    def __init__(self, layers: Sequence[str]):
        self.most: dict[str, Tensor] = {}
        self.layers = tuple(layers)
        self.state = "observe"

    def seen(self, name: str, x: Tensor) -> Tensor:
        """`observe` widens the range and passes `x` on; `learn` moves it and rounds `x`; `hold` rounds by it."""
        if self.state != "hold":
            now = x.detach().abs().amax().float()
            before = self.most.get(name)
            if before is None:
                self.most[name] = now
            elif self.state == "observe":
                self.most[name] = torch.maximum(before, now)
            else:
                self.most[name] = torch.lerp(before, now, _PART)
        if self.state == "observe":
            return x
        scale = (self.most[name] / _LEVELS).clamp_min(_LEAST)
        zero = torch.zeros((), dtype=torch.int32, device=x.device)
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, -_LEVELS - 1, _LEVELS)

    def magnitudes(self) -> dict[str, float]:
        """By path, as plain numbers."""
        return {name: float(most) for name, most in self.most.items()}


class RoundedWeight(nn.Module):
    """A parametrization: the weight as INT8 has it, by output channel (axis 0)."""

    def __init__(self, ranges: Ranges):
        super().__init__()
        self.ranges = ranges

    def forward(self, weight: Tensor) -> Tensor:
        """Rounded, but while ranges are observed; the gradient is that of `weight` itself."""
        if self.ranges.state == "observe":
            return weight
        most = weight.detach().abs().flatten(1).amax(1)
        scale = (most / _LEVELS).clamp_min(_LEAST)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -_LEVELS, _LEVELS)


@contextlib.contextmanager
def quantizing(model: ConvNeXt, layers: Sequence[str]) -> Iterator[Ranges]:
    """In the block, `layers` of `model` round as the ranges' state says. After it the model is plain again, with the
    weights, unrounded, that were learnt meanwhile."""
    ranges = Ranges(layers)
    hooks = []
    modules = [model.get_submodule(name) for name in layers]
    try:
        for name, module in zip(layers, modules, strict=True):
            hooks.append(module.register_forward_pre_hook(_hook(ranges, name)))
            parametrize.register_parametrization(module, "weight", RoundedWeight(ranges))
        yield ranges
    finally:
        for hook in hooks:
            hook.remove()
        for module in modules:
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)


def _hook(ranges: Ranges, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def rounded(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (ranges.seen(name, given[0]), *given[1:])

    return rounded
