"""ResNet50 as a recipe: what the toolchain exports, builds and judges.

cat2dog build --recipe zoo.resnet50.recipe:resnet50 --precision fp16
CAT2DOG_RESNET50=resnet50.safetensors cat2dog accuracy --recipe zoo.resnet50.recipe:resnet50
"""

from __future__ import annotations

import os

import numpy as np

from export.recipe import Feed, ModuleRecipe
from runtime.runner import TensorSpec
from zoo.resnet50.answer import OUTPUTS, answer_of
from zoo.resnet50.labels import labels_of
from zoo.resnet50.network import Classifier
from zoo.resnet50.pictures import drawn_crops
from zoo.resnet50.pixels import CROP, read_crop
from zoo.resnet50.weights import load, seeded

WEIGHTS_VARIABLE = "CAT2DOG_RESNET50"
# The worst of logits, embedding and (mean, variance). FP16 leaves 0.9999 and BF16, with its 8 bits, 0.9989: the last
# layer of the random weights takes small differences between large numbers. What is wrong comes nowhere near. Whether
# the classes stay the same is what `python -m zoo.resnet50.languages --reference` counts.
JUDGE = ("cosine", 0.995)


def resnet50() -> ModuleRecipe:
    """With the weights that CAT2DOG_RESNET50 names (a safetensors file), or seeded random ones where it is not set."""
    path = os.environ.get(WEIGHTS_VARIABLE)
    return recipe_of(path)


def recipe_of(path: str | os.PathLike[str] | None) -> ModuleRecipe:
    """The recipe of a safetensors file, or of seeded random weights."""
    return ModuleRecipe(
        name="resnet50" if path else "resnet50-random",
        build=lambda: Classifier(load(path) if path else seeded()),
        inputs=[TensorSpec("crop", "uint8", (-1, CROP, CROP, 3))],
        outputs=[TensorSpec(name, "float32", (-1, *shape)) for name, shape in OUTPUTS.items()],
        judge=JUDGE,
        sample=_sample,
        words=_words,
        picture=lambda path, index: read_crop(path, 0, index),
        samples=16,
    )


def _words(outputs: Feed) -> list[str]:
    labels = labels_of(None)
    rows = range(len(outputs["logits"]))
    answers = [answer_of({name: array[row : row + 1] for name, array in outputs.items()}) for row in rows]
    return ["; ".join(answer.lines(row + 1, labels)) for row, answer in enumerate(answers)]


def _sample(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    return {"crop": drawn_crops(count, int(generator.integers(1 << 31)))}
