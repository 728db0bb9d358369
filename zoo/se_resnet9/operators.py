"""The fused pieces as PyTorch operators, `torch.ops.se_resnet9.*`, with gradients.

On a CUDA device they are the Triton kernels of `kernels`; on a CPU, in any precision, the formulas of `formulas`: that
is their CPU implementation, not something to fall back to. They work under `torch.compile` and in CUDA graphs.
Gradients of gradients are not there, and PyTorch says so.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.se_resnet9 import formulas

_MERGED = "Tensor scale, Tensor bias, Tensor w1, Tensor c1, Tensor w2, Tensor c2"
_SCHEMAS = {
    "shifted_relu": "(Tensor z, Tensor before, Tensor after) -> Tensor",
    "shifted_relu_backward": "(Tensor g, Tensor z, Tensor before) -> (Tensor, Tensor)",
    "relu_pair": "(Tensor z, Tensor after) -> (Tensor, Tensor)",
    "relu_pair_backward": "(Tensor g, Tensor g_shifted, Tensor z) -> (Tensor, Tensor)",
    "squeeze_merge": f"(Tensor z, Tensor identity, {_MERGED}, Tensor after) -> Tensor",
    "squeeze_merge_backward": f"(Tensor g, Tensor z, Tensor identity, {_MERGED}) -> ({', '.join(['Tensor'] * 7)})",
}


def _operator(name: str) -> Any:
    """`name` with both implementations; Triton is imported by the first call on a GPU."""

    def on_gpu(*given: Tensor) -> Any:
        from zoo.se_resnet9 import kernels

        return getattr(kernels, name)(*given)

    made = torch.library.custom_op(
        f"se_resnet9::{name}", getattr(formulas, name), mutates_args=(), device_types="cpu", schema=_SCHEMAS[name]
    )
    made.register_kernel("cuda")(on_gpu)
    return made


shifted_relu = _operator("shifted_relu")
relu_pair = _operator("relu_pair")
squeeze_merge = _operator("squeeze_merge")
_shifted_relu_backward = _operator("shifted_relu_backward")
_relu_pair_backward = _operator("relu_pair_backward")
_squeeze_merge_backward = _operator("squeeze_merge_backward")


def _sums(z: Tensor, count: int) -> Tensor:
    return z.new_empty(count, dtype=formulas.wide(z.new_empty(0)).dtype)


@shifted_relu.register_fake
def _(z: Tensor, before: Tensor, after: Tensor) -> Tensor:
    return torch.empty_like(z)


@_shifted_relu_backward.register_fake
def _(g: Tensor, z: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(z), _sums(z, 2)


@relu_pair.register_fake
def _(z: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(z), torch.empty_like(z)


@_relu_pair_backward.register_fake
def _(g: Tensor, g_shifted: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(z), _sums(z, 1)


@squeeze_merge.register_fake
def _(z: Tensor, identity: Tensor, *rest: Tensor) -> Tensor:
    return torch.empty_like(z)


@_squeeze_merge_backward.register_fake
def _(g: Tensor, z: Tensor, identity: Tensor, scale: Tensor, bias: Tensor, w1: Tensor, *rest: Tensor) -> Any:
    count, channels, hidden = z.shape[0], z.shape[1], w1.shape[0]
    small = [z.new_empty(count, size) for size in (channels, hidden, channels, hidden)]
    return torch.empty_like(z), torch.empty_like(identity), *small, _sums(z, 3)


def _keep(*which: int) -> Any:
    """Saves these of the inputs for the gradient."""

    def setup(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        ctx.save_for_backward(*(inputs[index] for index in which))

    return setup


def _scalar(sums: Tensor, index: int, like: Tensor) -> Tensor:
    return sums[index].to(like.dtype).reshape(like.shape)


def _shifted_relu_gradient(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    z, before, after = ctx.saved_tensors
    g_z, sums = _shifted_relu_backward(g, z, before)
    return g_z, _scalar(sums, 0, before), _scalar(sums, 1, after)


def _relu_pair_gradient(ctx: Any, g: Tensor, g_shifted: Tensor) -> tuple[Tensor, Tensor]:
    z, after = ctx.saved_tensors
    g_z, sums = _relu_pair_backward(g, g_shifted, z)
    return g_z, _scalar(sums, 0, after)


def _squeeze_merge_gradient(ctx: Any, g: Tensor) -> tuple[Tensor, ...]:
    z, identity, scale, bias, w1, c1, w2, c2, after = ctx.saved_tensors
    back = _squeeze_merge_backward(g, z, identity, scale, bias, w1, c1, w2, c2)
    g_z, g_identity, excited, squeezed, mean, hidden, sums = back
    g_w1, g_w2 = squeezed.t() @ mean, excited.t() @ hidden
    scalars = _scalar(sums, 0, scale), _scalar(sums, 1, bias)
    return g_z, g_identity, *scalars, g_w1, squeezed.sum(0), g_w2, excited.sum(0), _scalar(sums, 2, after)


shifted_relu.register_autograd(_shifted_relu_gradient, setup_context=_keep(0, 1, 2))
relu_pair.register_autograd(_relu_pair_gradient, setup_context=_keep(0, 1))
squeeze_merge.register_autograd(_squeeze_merge_gradient, setup_context=_keep(*range(9)))
