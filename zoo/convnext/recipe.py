"""ConvNeXt as a recipe, with pixels in and logits out: what the toolchain exports, builds and judges.

    cat2dog build --recipe zoo.convnext.recipe:gelu --precision fp16 --batch 1-64

`gelu`, `relu`, `hardswish` and `fastswish` are of seeded weights; `trained` is of the checkpoint that CAT2DOG_CONVNEXT
names. What they are judged by is drawn, or from the folder that CAT2DOG_TINY_IMAGENET names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from export.image_io import PixelsIn
from export.recipe import ModuleRecipe
from runtime.errors import InputError
from runtime.runner import TensorSpec
from zoo.convnext.config import FULL, TINY, Config
from zoo.convnext.model import ConvNeXt, seeded

CHECKPOINT_VARIABLE, FOLDER_VARIABLE = "CAT2DOG_CONVNEXT", "CAT2DOG_TINY_IMAGENET"
# Of the five classes that PyTorch finds likeliest, four; which of two close ones comes first is no fault of an engine.
JUDGE = ("top5", 0.8)
# ImageNet's, in grey levels.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_SAMPLES = 16
# Apart from the seeds of training and validation pictures.
_SEED = 1000


class Classifier(nn.Module):
    """uint8 `[B,R,R,3]` to logits `[B,classes]`: the pixels are normalised in the graph."""

    def __init__(self, network: ConvNeXt):
        super().__init__()
        self.pixels_in, self.network = PixelsIn(MEAN, STD), network

    def forward(self, image: UInt8[Tensor, "b r r 3"]) -> Float[Tensor, "b classes"]:
        """Pixels in, logits out."""
        return self.network(self.pixels_in(image))


def convnext(network: ConvNeXt, name: str) -> ModuleRecipe:
    """The recipe of any ConvNeXt."""
    config = network.config

    def sample(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
        return {"image": sized(_pictures(count), config.resolution)}

    return ModuleRecipe(
        name=name,
        build=lambda: Classifier(network),
        inputs=[TensorSpec("image", "uint8", (-1, config.resolution, config.resolution, 3))],
        outputs=[TensorSpec("logits", "float32", (-1, config.classes))],
        judge=JUDGE,
        sample=sample,
        samples=_SAMPLES,
        words=words,
    )


def seeded_recipe(config: Config = FULL) -> ModuleRecipe:
    """Of seeded weights, named after its activation and resolution."""
    return convnext(seeded(config), f"convnext-{config.activation}-{config.resolution}")


def gelu() -> ModuleRecipe:
    """The document's network: GELU with tanh, 18,166,472 parameters."""
    return seeded_recipe()


def relu() -> ModuleRecipe:
    """With ReLU."""
    return seeded_recipe(replace(FULL, activation="relu"))


def hardswish() -> ModuleRecipe:
    """With Hardswish."""
    return seeded_recipe(replace(FULL, activation="hardswish"))


def fastswish() -> ModuleRecipe:
    """With FastSwish."""
    return seeded_recipe(replace(FULL, activation="fastswish"))


def tiny() -> ModuleRecipe:
    """For demonstrations on a CPU: the same parts at 32 px, 61,352 parameters."""
    return seeded_recipe(TINY)


def trained() -> ModuleRecipe:
    """The checkpoint that the environment names. Raises InputError where it names none."""
    from zoo.convnext.checkpoint import load

    path = os.environ.get(CHECKPOINT_VARIABLE)
    if not path:
        raise InputError(f"{CHECKPOINT_VARIABLE} names no checkpoint; set it to a file that zoo.convnext.train wrote")
    network = load(path)
    stem = "".join(each if each.isascii() and each.isalnum() else "-" for each in os.path.basename(path))
    return convnext(network, f"convnext-{stem.removesuffix('-safetensors')[:60]}")


def words(outputs: Mapping[str, np.ndarray]) -> list[str]:
    """The two likeliest classes of each sample, with percent."""
    logits = outputs["logits"].astype(np.float64)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    best = np.argsort(-shares, axis=1, kind="stable")[:, :2]
    return [
        ", ".join(f"class {one} {100 * share[one]:.1f} %" for one in row)
        for row, share in zip(best, shares, strict=True)
    ]


def sized(images: np.ndarray, resolution: int) -> np.ndarray:
    """uint8 `[N,S,S,3]` to `[N,R,R,3]`, bilinear."""
    if images.shape[1] == resolution:
        return images
    size = (resolution, resolution)
    return np.stack([np.asarray(Image.fromarray(each).resize(size, Image.Resampling.BILINEAR)) for each in images])


def _pictures(count: int) -> np.ndarray:
    """Pictures spread over the classes: the first `count` of each so-many-th of a folder's, or drawn ones."""
    from zoo.convnext.synthetic import CLASSES, draw

    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return draw(np.arange(count) * CLASSES // count, _SEED)
    from zoo.convnext.data import validation_pictures

    return validation_pictures(folder, count)
