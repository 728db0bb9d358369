"""The network: patches in, a pre-norm residual transformer, patches out.

    image [b 3 r r] -> patches -> embed -> depth x (attention, MLP) -> norm -> head -> patches -> dog [b 3 r r]

Block i computes x + attention(norm1(x)), then x + mlp(norm2(x)) (pre-norm: Xiong et al., arXiv 2002.04745).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from cat2dog.config import Config

# (queries, keys, values), each [b h n d] -> [b h n d]
AttentionFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


def patches(image: Float[Tensor, "b 3 r r"], patch: int) -> Float[Tensor, "b n c"]:
    """Cut an image into squares, row by row; within one: rows, columns, RGB."""
    return rearrange(image, "b c (h p) (w q) -> b (h w) (p q c)", p=patch, q=patch)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang & Sennrich, arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch c"]:
        # In FP32, because the square of an outlier channel (above 255) overflows FP16.
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return wide.to(x.dtype) * self.weight


def make_norm(config: Config) -> nn.Module:
    """The norm that the config names, over the residual stream's channels."""
    if config.norm == "rmsnorm":
        return RMSNorm(config.width, config.norm_eps)
    return nn.LayerNorm(config.width, eps=config.norm_eps)


class Rope(nn.Module):
    """2-D axial rotary position embedding (Su et al., arXiv 2104.09864; half-split as in GPT-NeoX).

    Channel i < d/2 is paired with i + d/2. The first d/4 pairs turn by row * base^(-i/(d/4)), the others by the column.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        empty = torch.empty(config.tokens, config.head_size)
        self.register_buffer("cos", empty, persistent=False)
        self.register_buffer("sin", empty.clone(), persistent=False)
        if not empty.is_meta:
            self.fill()

    def fill(self) -> None:
        """Compute the tables on the CPU; a module made on the meta device needs this once its weights are loaded."""
        with torch.device("cpu"):
            quarter = self.config.head_size // 4
            frequencies = self.config.rope_base ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
            place = torch.arange(self.config.grid, dtype=torch.float64)
            rows, columns = torch.meshgrid(place, place, indexing="ij")
            angles = torch.cat([p.reshape(-1, 1) * frequencies for p in (rows, columns)], dim=1)  # [n, d/2]
            angles = torch.cat([angles, angles], dim=1)
            self.cos, self.sin = angles.cos().float(), angles.sin().float()

    def forward(self, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
        return (x * self.cos + turned * self.sin).to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention over all tokens, from one packed qkv projection."""

    def __init__(self, config: Config):
        super().__init__()
        self.width, self.heads, self.head_size = config.width, config.heads, config.head_size
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.bias)
        self.q_norm = RMSNorm(config.head_size, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_size, config.norm_eps) if config.qk_norm else nn.Identity()
        self.out = nn.Linear(config.width, config.width, bias=config.bias)

    def inner(
        self, x: Float[Tensor, "b n w"], rope: nn.Module, attend: AttentionFunction | None = None
    ) -> Float[Tensor, "b n w"]:
        """What `out` is given."""
        # Split, then reshape and transpose each part: TensorRT 8.6 computes permute and unbind of one reshape wrongly.
        batch, tokens, _ = x.shape
        q, k, v = (
            part.reshape(batch, tokens, self.heads, self.head_size).transpose(1, 2)
            for part in self.qkv(x).split(self.width, -1)
        )
        q, k = rope(self.q_norm(q)), rope(self.k_norm(k))
        y = F.scaled_dot_product_attention(q, k, v) if attend is None else attend(q, k, v)
        return y.transpose(1, 2).reshape(batch, tokens, self.width)

    def forward(
        self, x: Float[Tensor, "b n w"], rope: nn.Module, attend: AttentionFunction | None = None
    ) -> Float[Tensor, "b n w"]:
        return self.out(self.inner(x, rope, attend))


class GeluMlp(nn.Module):
    """down(gelu(up(x)))."""

    def __init__(self, config: Config):
        super().__init__()
        self.up = nn.Linear(config.width, config.hidden, bias=config.bias)
        self.down = nn.Linear(config.hidden, config.width, bias=config.bias)

    def inner(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n m"]:
        """What `down` is given."""
        return F.gelu(self.up(x))

    def forward(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        return self.down(self.inner(x))


class SwigluMlp(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer, arXiv 2002.05202)."""

    def __init__(self, config: Config):
        super().__init__()
        self.gate = nn.Linear(config.width, config.hidden, bias=config.bias)
        self.up = nn.Linear(config.width, config.hidden, bias=config.bias)
        self.down = nn.Linear(config.hidden, config.width, bias=config.bias)

    def inner(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n m"]:
        """What `down` is given."""
        return F.silu(self.gate(x)) * self.up(x)

    def forward(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        return self.down(self.inner(x))


class Block(nn.Module):
    """One pre-norm residual block."""

    def __init__(self, config: Config):
        super().__init__()
        self.norm1 = make_norm(config)
        self.attention = Attention(config)
        self.norm2 = make_norm(config)
        self.mlp = SwigluMlp(config) if config.mlp == "swiglu" else GeluMlp(config)

    def forward(
        self, x: Float[Tensor, "b n w"], rope: nn.Module, attend: AttentionFunction | None = None
    ) -> Float[Tensor, "b n w"]:
        x = x + self.attention(self.norm1(x), rope, attend)
        return x + self.mlp(self.norm2(x))


class Cat2Dog(nn.Module):
    """The whole network. `attend`, if given, replaces scaled_dot_product_attention (the reference passes its own)."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.embed = nn.Linear(config.patch_channels, config.width, bias=config.bias)
        self.position = None if config.rope else nn.Parameter(torch.zeros(config.tokens, config.width))
        self.rope = Rope(config) if config.rope else nn.Identity()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = make_norm(config)
        self.head = nn.Linear(config.width, config.patch_channels, bias=config.bias)

    def tokens(self, image: Float[Tensor, "b 3 r r"]) -> Float[Tensor, "b n w"]:
        """The residual stream before the first block."""
        x = self.embed(patches(image, self.config.patch))
        return x if self.position is None else x + self.position

    def picture(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b 3 r r"]:
        """The image that the residual stream after the last block stands for."""
        p, grid = self.config.patch, self.config.grid
        return rearrange(self.head(self.norm(x)), "b (h w) (p q c) -> b c (h p) (w q)", h=grid, w=grid, p=p, q=p)

    def forward(
        self, image: Float[Tensor, "b 3 r r"], attend: AttentionFunction | None = None
    ) -> Float[Tensor, "b 3 r r"]:
        """Image in -1..1 to image of the same shape; not clamped."""
        x = self.tokens(image)
        for block in self.blocks:
            x = block(x, self.rope, attend)
        return self.picture(x)

    def fill_tables(self) -> None:
        """Compute what is not in the checkpoint (the RoPE tables) after loading weights into a meta-device module."""
        if isinstance(self.rope, Rope):
            self.rope.fill()


def parameter_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter, in the module's own order; allocates nothing."""
    with torch.device("meta"):
        return {name: tuple(p.shape) for name, p in Cat2Dog(config).named_parameters()}
