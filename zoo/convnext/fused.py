"""A block's first half as two custom operators, for inference: Triton on a GPU, plain PyTorch on a CPU.

    convnext::depthwise_sums   depthwise convolution 7 x 7 to four times the channels, and the norm's sums by the way
    convnext::normed_mix       norm, convolution 1 x 1 and activation in one

What both save is reading the widened tensor for the norm's mean, reading and writing it for the norm itself, and
reading and writing it for the activation.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.errors import InputError
from zoo.convnext.activations import activation as activation_module
from zoo.convnext.config import EXPANSION
from zoo.convnext.model import Block, ConvNeXt

_LEAST_CHANNELS = 4


@torch.library.custom_op("convnext::depthwise_sums", mutates_args=(), device_types="cpu")
def depthwise_sums(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """`x` `[B,d,h,w]`, `weight` `[4d,1,7,7]`, `bias` `[4d]` to `[B,4d,h,w]`, and FP32 `[B,tiles,3]`.

    Of each tile the count, the mean and the squared deviations of what was written; how many tiles there are is up to
    the device.
    """
    y = functional.conv2d(x, weight, bias, padding=3, groups=x.shape[1])
    wide = y.float().flatten(1)
    mean = wide.mean(1)
    squares = (wide - mean[:, None]).square().sum(1)
    parts = torch.stack([torch.full_like(mean, wide.shape[1]), mean, squares], 1)
    return y, parts[:, None].contiguous()


@depthwise_sums.register_kernel("cuda")
def _(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    from zoo.convnext import fused_kernels

    return fused_kernels.depthwise_sums(x.contiguous(), weight, bias)


@depthwise_sums.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    tiles = 1
    if x.device.type == "cuda":
        from zoo.convnext.fused_kernels import PIXELS

        tiles = x.shape[1] * -(-(x.shape[2] * x.shape[3]) // PIXELS)
    y = x.new_empty((x.shape[0], EXPANSION * x.shape[1], x.shape[2], x.shape[3]))
    return y, x.new_empty((x.shape[0], tiles, 3), dtype=torch.float32)


@torch.library.custom_op("convnext::normed_mix", mutates_args=(), device_types="cpu")
def normed_mix(
    y: Tensor, parts: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, bias: Tensor,
    activation: str, epsilon: float,
) -> Tensor:  # fmt: skip
    """activation(conv1x1(norm(y))), `[B,c,h,w]` in and out; `norm_weight` and `norm_bias` are `[c,h,w]`, `weight`
    `[c,c,1,1]`, `parts` what `depthwise_sums` gave with `y`; `activation` is one of ACTIVATIONS."""
    counts, means, squares = parts.unbind(2)
    total = counts.sum(1)
    mean = (counts * means).sum(1) / total
    variance = (squares + counts * (means - mean[:, None]).square()).sum(1) / total
    shape = (-1, 1, 1, 1)
    normed = (y.float() - mean.view(shape)) * (variance + epsilon).rsqrt().view(shape)
    normed = (normed * norm_weight.float() + norm_bias.float()).to(y.dtype)
    return activation_module(activation)(functional.conv2d(normed, weight, bias)).contiguous()


@normed_mix.register_kernel("cuda")
def _(
    y: Tensor, parts: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, bias: Tensor,
    activation: str, epsilon: float,
) -> Tensor:  # fmt: skip
    from zoo.convnext import fused_kernels

    return fused_kernels.normed_mix(y, parts, norm_weight, norm_bias, weight, bias, activation, epsilon)


@normed_mix.register_fake
def _(
    y: Tensor, parts: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, bias: Tensor,
    activation: str, epsilon: float,
) -> Tensor:  # fmt: skip
    return torch.empty_like(y)


class FusedBlock(nn.Module):
    """A `Block` with the same weights, its first half in the two operators. For inference: it has no gradient."""

    def __init__(self, block: Block, activation: str):
        super().__init__()
        self.depthwise, self.norm, self.mix, self.project = block.depthwise, block.norm, block.mix, block.project
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """`[B,d,h,w]` in and out."""
        y, parts = depthwise_sums(x, self.depthwise.weight, self.depthwise.bias)
        wide = normed_mix(
            y, parts, self.norm.weight, self.norm.bias, self.mix.weight, self.mix.bias, self.activation, self.norm.eps
        )  # fmt: skip
        return x + self.project(wide)


def fused(model: ConvNeXt) -> ConvNeXt:
    """A copy of `model` with fused blocks, in eval mode and without gradients.

    Raises InputError where the channels are too few for the kernels.
    """
    if min(model.config.channels) % _LEAST_CHANNELS:
        raise InputError(f"channels {model.config.channels}; fused blocks expect multiples of {_LEAST_CHANNELS}")
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for blocks in model.stages:
        assert isinstance(blocks, nn.Sequential)
        for index, block in enumerate(blocks):
            assert isinstance(block, Block)
            blocks[index] = FusedBlock(block, model.config.activation)
    return model
