"""Seeded random weights that behave like a trained network's, made block by block and written as they are made.

Plain random weights would make a useless test: attention averages all tokens into one, the picture is grey, and a
faulty layer changes nothing. So each weight is drawn, then adjusted on a small sample of tokens that is carried along:

- the mean over tokens of what a linear layer is given is projected out of its weights, so that tokens stay different;
- keys resemble queries, so that attention is peaked on near and similar tokens;
- each branch adds a fixed share of the residual stream's deviation, so that every block matters, also the last of many;
- a few residual channels hold constant values tens of times the others' deviation, written by the MLPs, as the massive
  activations of trained transformers are (Sun et al., arXiv 2402.17762), and some norm gains are large;
- the head is scaled to the wanted contrast.

Nothing is run at the checkpoint's own resolution: the sample is a few crops of `_GRID` by `_GRID` patches.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cat2dog.checkpoint import save
from cat2dog.config import Config
from cat2dog.folder import refuse_existing
from cat2dog.model import Attention, Block, Cat2Dog, GeluMlp, SwigluMlp, patches

Progress = Callable[[int, int], None]

_GRID = 12
_CROPS = 3
_CONTRAST = 52 / 127.5  # deviation of the output before clamping; 1.4 % of a normal distribution is clipped
_TEXTURE = 3.0  # weight of a patch's texture against its mean colour
_ATTENTION_SHARE = 0.2  # of the residual stream's deviation, added by each attention of a network of depth 32
_MLP_SHARE = 0.25  # and by each MLP; more in a shallower one, see _share
_SHARPNESS = 1.6  # gain of queries and of keys, so that scores have a deviation of its square
_LIKENESS = 0.6  # correlation of each key row with its query row
_OUTLIER_RATIO = (20.0, 40.0)  # outlier channels, in deviations of the others
_LARGE_GAIN = 6.0


def initialise(
    config: Config,
    seed: int,
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Make the checkpoint `folder`; the same config and seed give the same weights on the same machine and torch.

    `progress(done, total)` counts blocks, embedding and head included. Raises as `checkpoint.save` does.
    """
    refuse_existing(folder, overwrite)
    save(folder, config, random_weights(config, seed, progress), overwrite=overwrite)


def random_weights(config: Config, seed: int, progress: Progress | None = None) -> Iterator[tuple[str, Tensor]]:
    """(name, FP32 tensor) of every parameter, each made when asked for; one block is in memory at a time."""
    total = config.depth + 2
    with torch.no_grad():
        sampler = _Sampler(config, seed)
        for done, part in enumerate(sampler.parts(), start=1):
            yield from part
            if progress:
                progress(done, total)


class _Sampler:
    """The random generator, and the sample's residual stream `x` [crops n w] as far as it has come."""

    def __init__(self, config: Config, seed: int):
        self.config = config
        self.generator = torch.Generator().manual_seed(seed)
        grid = min(_GRID, config.grid)
        small = replace(config, resolution=grid * config.patch)
        with torch.device("meta"):
            self.model = Cat2Dog(replace(small, depth=1))
        self.model.fill_tables()
        self.block_config = small
        self.crops = _crops(_CROPS, small.resolution, config, self.generator)
        count = max(1, config.width // 384)
        self.outliers = torch.randperm(config.width, generator=self.generator)[:count]
        low, high = _OUTLIER_RATIO
        ratio = low + (high - low) * torch.rand(count, generator=self.generator)
        self.ratio = ratio * torch.sign(torch.randn(count, generator=self.generator))
        self.ordinary = torch.ones(config.width, dtype=torch.bool)
        self.ordinary[self.outliers] = False
        self.x = torch.empty(0)

    def parts(self) -> Iterator[list[tuple[str, Tensor]]]:
        """The parameters of the embedding, of each block, and of norm and head."""
        yield self._embedding()
        for index in range(self.config.depth):
            yield self._block(f"blocks.{index}.")
        yield self._head()

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def _spread(self) -> float:
        """Deviation over tokens of an ordinary channel of the residual stream."""
        return _deviation(self.x[..., self.ordinary])

    def _embedding(self) -> list[tuple[str, Tensor]]:
        model, config = self.model, self.config
        model.embed.to_empty(device="cpu")
        weight = self._normal(config.width, config.patch_channels)
        # Patches of a picture differ mostly in their mean colour; unless texture counts for more, tokens are all alike.
        mean = weight.reshape(config.width, -1, 3).mean(dim=1, keepdim=True).expand(-1, config.patch**2, -1)
        weight = _TEXTURE * weight - (_TEXTURE - 1) * mean.reshape(weight.shape)
        weight.div_(_deviation(patches(self.crops, config.patch) @ weight.T))
        model.embed.weight.copy_(weight)
        self._bias(model.embed, 0.1)
        made = []
        if model.position is not None:
            table = 0.3 * self._normal(config.tokens, config.width)
            model.position = nn.Parameter(table[: self.block_config.tokens])
            made.append(("position", table))
        self.x = model.tokens(self.crops)
        return [*_named("embed.", model.embed), *made]

    def _block(self, prefix: str) -> list[tuple[str, Tensor]]:
        with torch.device("meta"):
            block = Block(self.block_config)
        block.to_empty(device="cpu")
        self._norm(block.norm1)
        self.x = self.x + self._attention(block.attention, block.norm1(self.x))
        self._norm(block.norm2)
        self.x = self.x + self._mlp(block.mlp, block.norm2(self.x))
        return _named(prefix, block)

    def _norm(self, norm: nn.Module) -> None:
        """Gains as trained ones are: about 1, a few large, and small where the residual stream has its outliers."""
        width = self.config.width
        gain = torch.exp(0.25 * self._normal(width))
        large = torch.randperm(width, generator=self.generator)[: max(1, width // 200)]
        gain[large] = _LARGE_GAIN
        gain[self.outliers] = 0.1
        norm.weight.copy_(gain)
        if isinstance(norm, nn.LayerNorm):
            norm.bias.copy_(0.05 * self._normal(width))

    def _attention(self, attention: Attention, given: Tensor) -> Tensor:
        width = self.config.width
        query, key, value = attention.qkv.weight.split(width)
        query.copy_(self._normal(width, width))
        key.copy_(_LIKENESS * query + math.sqrt(1 - _LIKENESS**2) * self._normal(width, width))
        value.copy_(self._normal(width, width))
        _project_out_mean(attention.qkv.weight, given)
        self._bias(attention.qkv, 0.1)
        for rows in (query, key, value):
            rows.div_(_deviation(given @ rows.T))
        if self.config.qk_norm:
            for norm in (attention.q_norm, attention.k_norm):
                norm.weight.copy_(_SHARPNESS * torch.exp(0.2 * self._normal(self.config.head_size)))
        else:
            query.mul_(_SHARPNESS)
            key.mul_(_SHARPNESS)
        return self._add(
            attention.out, attention.inner(given, self.model.rope), _share(_ATTENTION_SHARE, self.config.depth)
        )

    def _mlp(self, mlp: GeluMlp | SwigluMlp, given: Tensor) -> Tensor:
        shape = mlp.up.weight.shape
        mlp.up.weight.copy_(self._normal(*shape))
        into = [mlp.up]
        if isinstance(mlp, SwigluMlp):
            # Alike, so that what they make together has a mean from which the outlier channels can be written.
            gate = _LIKENESS * mlp.up.weight + math.sqrt(1 - _LIKENESS**2) * self._normal(*shape)
            mlp.gate.weight.copy_(gate)
            into.append(mlp.gate)
        for linear in into:
            _project_out_mean(linear.weight, given)
            linear.weight.div_(_deviation(given @ linear.weight.T))
            self._bias(linear, 0.1)
        return self._add(mlp.down, mlp.inner(given), _share(_MLP_SHARE, self.config.depth), outliers=True)

    def _add(self, linear: nn.Linear, given: Tensor, share: float, outliers: bool = False) -> Tensor:
        """Weights of a branch's last layer, so that it adds its share; returns what it adds to the sample."""
        spread = self._spread()
        linear.weight.copy_(self._normal(*linear.weight.shape))
        mean = _project_out_mean(linear.weight, given)
        added = (given @ linear.weight.T)[..., self.ordinary]
        linear.weight.mul_(share * spread / _deviation(added))
        # Attention leaves the outlier channels nearly alone; the MLPs bring them to their ratio, from the constant part
        # of what they are given.
        linear.weight[self.outliers] *= 0.3
        self._bias(linear, 0.02 * spread)
        if outliers:
            after = _deviation((self.x + linear(given))[..., self.ordinary])
            now = self.x[..., self.outliers].mean(dim=(0, 1))
            linear.weight[self.outliers] = torch.outer(self.ratio * after - now, mean / mean.dot(mean))
        return linear(given)

    def _bias(self, linear: nn.Linear, deviation: float) -> None:
        if linear.bias is not None:
            linear.bias.copy_(deviation * self._normal(*linear.bias.shape))

    def _head(self) -> list[tuple[str, Tensor]]:
        norm, head = self.model.norm, self.model.head
        norm.to_empty(device="cpu")
        head.to_empty(device="cpu")
        self._norm(norm)
        given = norm(self.x)
        head.weight.copy_(self._normal(*head.weight.shape))
        _project_out_mean(head.weight, given)
        self._bias(head, 0.05)
        head.weight.mul_(_CONTRAST / _deviation(given @ head.weight.T))
        return [*_named("norm.", norm), *_named("head.", head)]


def _share(share: float, depth: int) -> float:
    """A shallow network's blocks must each change the tokens more, or its output is little but the embedded colours."""
    return share * (32 / min(depth, 32)) ** 0.3


def _named(prefix: str, module: nn.Module) -> list[tuple[str, Tensor]]:
    return [(prefix + name, parameter) for name, parameter in module.named_parameters()]


def _deviation(x: Tensor) -> float:
    """Root of the mean square; the mean over tokens has been projected out where that matters."""
    return max(float(x.square().mean().sqrt()), 1e-12)


def _project_out_mean(weight: Float[Tensor, "o i"], given: Float[Tensor, "b n i"]) -> Float[Tensor, " i"]:
    """Change `weight` so that it maps the mean of `given` over tokens to zero (a rank-1 update); returns the mean."""
    mean = given.mean(dim=(0, 1))
    square = mean.dot(mean)
    if square > 0:
        weight.addr_(weight @ mean, mean, alpha=-1 / float(square))
    return mean


def _crops(count: int, side: int, config: Config, generator: torch.Generator) -> Float[Tensor, "count 3 side side"]:
    """Crops as photographs have them: a colour, with detail that falls off as 1/frequency, in -1..1."""
    frequency = torch.fft.fftfreq(side)
    radius = torch.sqrt(frequency[:, None] ** 2 + frequency[None, :] ** 2)
    spectrum = torch.fft.fft2(torch.randn(count, 3, side, side, generator=generator))
    radius[0, 0] = math.inf
    detail = torch.fft.ifft2(spectrum / radius).real
    detail = detail / detail.std(dim=(1, 2, 3), keepdim=True)
    contrast = 0.2 + 0.4 * torch.rand(count, 1, 1, 1, generator=generator)
    colour = 0.4 * torch.randn(count, 3, 1, 1, generator=generator)
    return (colour + contrast * detail).clamp(-1, 1)
