"""The denoiser of a pipeline as a recipe, for one size of pictures: what the toolchain exports, builds and judges.

    CAT2DOG_TEXT2IMAGE=folder CAT2DOG_TEXT2IMAGE_SIZE=512x512 \\
        cat2dog build --recipe zoo.text2image.recipe:denoiser --precision fp16 --batch 1-2
"""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
import torch

from export.recipe import ModuleRecipe
from runtime.errors import InputError
from runtime.runner import TensorSpec
from zoo.text2image.calls import Call, nested, recorded
from zoo.text2image.painter import Painter
from zoo.text2image.parts import denoiser_name, output_name, own_size
from zoo.text2image.request import Request

PIPELINE_VARIABLE = "CAT2DOG_TEXT2IMAGE"
SIZE_VARIABLE = "CAT2DOG_TEXT2IMAGE_SIZE"
# One answer of a denoiser is wrong where its direction is: a picture is made of many of them.
JUDGE = ("cosine", 0.999)
# What is denoised to see, and to judge by, what the denoiser is given.
PROMPTS = ("a cat on a mat, photo", "the sea at night, oil on canvas")
_STEPS = 4


class Denoiser(torch.nn.Module):
    """A diffusers UNet or transformer that takes the tensors of a call in order, and gives its answer alone."""

    def __init__(self, network: torch.nn.Module, call: Call):
        super().__init__()
        self.network = network
        self.paths = tuple(call.tensors)
        self.constant_paths = tuple(call.constants)
        for number, tensor in enumerate(call.constants.values()):
            self.register_buffer(f"constant_{number}", tensor)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        constants = [getattr(self, f"constant_{number}") for number in range(len(self.constant_paths))]
        values = dict(zip((*self.paths, *self.constant_paths), (*tensors, *constants), strict=True))
        return self.network(**nested(values), return_dict=False)[0]


def denoiser_recipe(pipeline: Any, name: str, width: int | None = None, height: int | None = None) -> ModuleRecipe:
    """The recipe of a pipeline's denoiser for pictures of `width` x `height` pixels, by default the pipeline's own.

    It is judged by what the denoiser is given when PROMPTS are denoised, at steps from the first to the last. The
    pipeline must be FP32 on the CPU: its denoiser is the reference. Raises InputError where it is not.
    """
    network = getattr(pipeline, denoiser_name(pipeline))
    if network.dtype != torch.float32 or network.device.type != "cpu":
        raise InputError(f"a denoiser of {network.dtype} on {network.device} was given; open it as float32 on the cpu")
    calls = denoiser_calls(pipeline, width, height)
    own = own_size(pipeline)
    size = (width or own[0], height or own[1])
    first = calls[0]
    with torch.inference_mode():
        answer = Denoiser(network, first)(*first.tensors.values())

    def sample(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
        # Of each call the last row: with guidance that is the one with the prompt.
        chosen = np.linspace(0, len(calls) - 1, count).round().astype(int)
        feeds = [calls[index].feed() for index in chosen]
        return {spec.name: np.stack([feed[spec.name][-1] for feed in feeds]) for spec in first.specs()}

    return ModuleRecipe(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:100] or "denoiser",
        build=lambda: Denoiser(network, first),
        inputs=first.specs(),
        outputs=[TensorSpec(output_name(*size), "float32", (-1, *answer.shape[1:]))],
        judge=JUDGE,
        sample=sample,
        samples=len(calls),
        about={"configuration": repr(sorted((key, repr(value)) for key, value in network.config.items()))},
    )


def denoiser_calls(pipeline: Any, width: int | None = None, height: int | None = None) -> list[Call]:
    """What the pipeline gives its denoiser while it denoises PROMPTS."""
    with recorded(pipeline) as calls:
        for seed, prompt in enumerate(PROMPTS):
            Painter(pipeline).paint(Request(prompt, steps=_STEPS, seed=seed, width=width, height=height))
    return calls


def denoiser() -> ModuleRecipe:
    """The recipe of the pipeline and size that the environment names, for `--recipe`."""
    from zoo.text2image.loading import open_pipeline

    source = os.environ.get(PIPELINE_VARIABLE)
    if not source:
        raise InputError(f"{PIPELINE_VARIABLE} names no pipeline; set it to a diffusers folder")
    width, height = size_of(os.environ.get(SIZE_VARIABLE, ""))
    pipeline = open_pipeline(source, "cpu", "float32")
    name = os.path.basename(os.path.normpath(source))
    return denoiser_recipe(
        pipeline, f"{name}-{denoiser_name(pipeline)}-{width or 'own'}x{height or 'own'}", width, height
    )


def size_of(text: str) -> tuple[int | None, int | None]:
    """`512x768` as width and height in pixels; nothing as neither. Raises InputError for anything else."""
    if not text:
        return None, None
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not found:
        raise InputError(f"size '{text[:40]}' was given; expected WIDTHxHEIGHT, such as 512x512")
    return int(found[1]), int(found[2])
