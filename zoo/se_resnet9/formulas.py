"""The fused pieces and their gradients in plain PyTorch: what the operators are on a CPU, and what kernels must equal.

Half precision is computed in FP32 and rounded once at the end, as the kernels do; FP64 stays FP64. Tensors are
`[B,C,H,W]`; Fixup's scalars have one element. Names: z is what a convolution gave, g a gradient that comes in.
"""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """In the precision to compute in."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def like(x: Tensor, value: Tensor) -> Tensor:
    """`value` with type and memory format of `x`."""
    return torch.empty_like(x).copy_(value)


def shifted_relu(z: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """relu(z + before) + after."""
    return like(z, torch.relu(wide(z) + wide(before)) + wide(after))


def shifted_relu_backward(g: Tensor, z: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of z, and `[2]` in the wide type: those of `before` and `after`."""
    through = torch.where(wide(z) + wide(before) > 0, wide(g), 0)
    return like(z, through), torch.stack([through.sum(), wide(g).sum()])


def relu_pair(z: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """relu(z), and relu(z) + after: a block's identity, and what its convolution takes."""
    x = torch.relu(wide(z))
    return like(z, x), like(z, x + wide(after))


def relu_pair_backward(g: Tensor, g_shifted: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of z, and `[1]`: that of `after`."""
    return like(z, torch.where(z > 0, wide(g) + wide(g_shifted), 0)), wide(g_shifted).sum().reshape(1)


def squeeze_merge(
    z: Tensor,
    identity: Tensor,
    scale: Tensor,
    bias: Tensor,
    w1: Tensor,
    c1: Tensor,
    w2: Tensor,
    c2: Tensor,
    after: Tensor,
) -> Tensor:
    """relu(o * gate(o) + identity) + after: o = z * scale + bias, gate(o) = sigmoid(W2 relu(W1 mean(o) + c1) + c2).

    `after` is the next block's first scalar, which its convolution and its pooling both want added.
    """
    o = wide(z) * wide(scale) + wide(bias)
    _, _, gate = _gate(o, w1, c1, w2, c2)
    return like(z, torch.relu(o * gate[:, :, None, None] + wide(identity)) + wide(after))


def squeeze_merge_backward(
    g: Tensor,
    z: Tensor,
    identity: Tensor,
    scale: Tensor,
    bias: Tensor,
    w1: Tensor,
    c1: Tensor,
    w2: Tensor,
    c2: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of z, of the identity, of what enters the sigmoid `[B,C]` and the inner ReLU's input `[B,R]`; mean
    `[B,C]` and hidden `[B,R]`, for the gradients of weights; and `[3]`: those of `scale`, `bias` and `after`.
    """
    o = wide(z) * wide(scale) + wide(bias)
    mean, hidden, gate = _gate(o, w1, c1, w2, c2)
    through = torch.where(o * gate[:, :, None, None] + wide(identity) > 0, wide(g), 0)
    excited = (through * o).sum((2, 3)) * gate * (1 - gate)
    squeezed = torch.where(hidden > 0, excited @ wide(w2), 0)
    back = (squeezed @ wide(w1)) / (z.shape[2] * z.shape[3])
    g_o = through * gate[:, :, None, None] + back[:, :, None, None]
    sums = torch.stack([(g_o * wide(z)).sum(), g_o.sum(), wide(g).sum()])
    small = [each.to(z.dtype) for each in (excited, squeezed, mean, hidden)]
    return like(z, g_o * wide(scale)), like(identity, through), *small, sums  # type: ignore[return-value]


def _gate(o: Tensor, w1: Tensor, c1: Tensor, w2: Tensor, c2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean = o.mean((2, 3))
    hidden = torch.relu(mean @ wide(w1).t() + wide(c1))
    return mean, hidden, torch.sigmoid(hidden @ wide(w2).t() + wide(c2))
