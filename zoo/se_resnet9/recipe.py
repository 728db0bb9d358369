"""SE-ResNet9 as recipes: what the toolchain exports, builds and judges.

    cat2dog build --recipe zoo.se_resnet9.recipe:rgb --precision fp16 --batch 128 --refit
    CAT2DOG_SE_RESNET9=policy.safetensors cat2dog build --recipe zoo.se_resnet9.recipe:trained --batch 128 --refit

`rgb`, `depth` and `binned_depth` are the network of 3, 1 and 11 channels with seeded weights, `encoder` is the one of
colours with pixels before and the head behind it, `trained` the checkpoint that CAT2DOG_SE_RESNET9 names.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import nn

from export.recipe import ModuleRecipe
from runtime.errors import InputError
from runtime.runner import TensorSpec
from zoo.se_resnet9.encoder import VECTOR, Encoder
from zoo.se_resnet9.network import CHANNELS, SIDE, SEResNet9
from zoo.se_resnet9.pixels import DepthPixels
from zoo.se_resnet9.weights import load, seeded

VARIABLE = "CAT2DOG_SE_RESNET9"
JUDGE = ("cosine", 0.999)
SAMPLES = 16


def recipe_of(network: SEResNet9, name: str) -> ModuleRecipe:
    """The recipe of any SE-ResNet9: normalised pixels in, features out."""
    channels = network.channels

    def sample(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
        return {"image": normalised(count, channels, generator)}

    return ModuleRecipe(
        name=name,
        build=lambda: network,
        inputs=[TensorSpec("image", "float32", (-1, channels, SIDE, SIDE))],
        outputs=[TensorSpec("features", "float32", (-1, CHANNELS[-1], 2, 2))],
        judge=JUDGE,
        sample=sample,
        samples=SAMPLES,
    )


def rgb() -> ModuleRecipe:
    """Of 3 channels, 4,938,256 seeded parameters."""
    return recipe_of(seeded(3), "se-resnet9-rgb")


def depth() -> ModuleRecipe:
    """Of 1 channel."""
    return recipe_of(seeded(1), "se-resnet9-depth")


def binned_depth() -> ModuleRecipe:
    """Of the 11 channels that `pixels.DepthPixels` makes."""
    return recipe_of(seeded(11), "se-resnet9-depth11")


def trained() -> ModuleRecipe:
    """The checkpoint that the environment names, called after its file. Raises InputError where it names none."""
    path = os.environ.get(VARIABLE)
    if not path:
        raise InputError(f"{VARIABLE} names no checkpoint; set it to a file of `python -m zoo.se_resnet9.weights`")
    stem = "".join(each if each.isascii() and each.isalnum() else "-" for each in os.path.basename(path))
    return recipe_of(load(path), f"se-resnet9-{stem.removesuffix('-safetensors')[:60]}")


def encoder() -> ModuleRecipe:
    """uint8 colours in, a vector out: 6,643,472 seeded parameters."""

    def build() -> nn.Module:
        made = Encoder(seeded(3))
        made.train()
        made.pixels(torch.from_numpy(pictures(SAMPLES, np.random.default_rng(1))))
        return made.eval()

    def sample(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
        return {"image": pictures(count, generator)}

    return ModuleRecipe(
        name="se-resnet9-encoder",
        build=build,
        inputs=[TensorSpec("image", "uint8", (-1, 3, SIDE, SIDE))],
        outputs=[TensorSpec("vector", "float32", (-1, VECTOR))],
        judge=JUDGE,
        sample=sample,
        samples=SAMPLES,
    )


def pictures(count: int, generator: np.random.Generator) -> np.ndarray:
    """uint8 `[N,3,64,64]`: smooth waves of colour with noise: noise alone would make all features alike."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    phase, turn = generator.random((count, 3, 1, 1)) * 2 * np.pi, generator.uniform(-6, 6, (2, count, 3, 1, 1))
    waves = (
        0.5 + 0.35 * np.sin(turn[0] * x + turn[1] * y + phase) + 0.1 * generator.standard_normal((count, 3, SIDE, SIDE))
    )
    return (waves.clip(0, 1) * 255).astype(np.uint8)


def normalised(count: int, channels: int, generator: np.random.Generator) -> np.ndarray:
    """FP32 `[N,C,64,64]` as pre-processing gives it: colours about 0, depth in 0..1, and its bins."""
    seen = pictures(count, generator).astype(np.float32)
    if channels == 3:
        return (seen / 255 - 0.5) / 0.25
    metres = torch.from_numpy(seen[:, :1] / 25)
    binned = DepthPixels()(metres).numpy()
    if channels == DepthPixels.channels:
        return binned
    return np.repeat(binned[:, :1], channels, axis=1)
