"""What a pipeline is made of, whatever its family: its denoiser, and the sizes of pictures that it takes."""

from __future__ import annotations

import math
import re
from typing import Any

from runtime.errors import InputError
from zoo.text2image.request import LEAST_SIDE, MOST_SIDE

DENOISERS = ("unet", "transformer")
# The output of an exported denoiser, which tells the size of the pictures it is for: packed latents of 512 x 256 and
# 256 x 512 have the same shape, but patches in other places.
_OUTPUT = "denoised_{}x{}"
# Pipelines ask for multiples of 8 even where their decoder enlarges less.
_LEAST_MULTIPLE = 8


def denoiser_name(pipeline: Any) -> str:
    """`unet` or `transformer`. Raises InputError for a pipeline without one, or with several that take turns."""
    have = [name for name in DENOISERS if getattr(pipeline, name, None) is not None]
    if len(have) != 1 or getattr(pipeline, "transformer_2", None) is not None:
        raise InputError(f"{type(pipeline).__name__} has no single denoiser; expected one of {', '.join(DENOISERS)}")
    return have[0]


def output_name(width: int, height: int) -> str:
    """What an exported denoiser's output is called, for pictures of so many pixels."""
    return _OUTPUT.format(width, height)


def size_of_output(name: str) -> tuple[int, int] | None:
    """The width and height that `output_name` was given; None for another name."""
    found = re.fullmatch(_OUTPUT.format(r"(\d{1,5})", r"(\d{1,5})"), name)
    return (int(found[1]), int(found[2])) if found else None


def multiple(pipeline: Any) -> int:
    """Of what both sides of a picture, in pixels, must be multiples. Transformers see patches of 2 x 2 latents."""
    patch = 2 if denoiser_name(pipeline) == "transformer" else 1
    return math.lcm(_LEAST_MULTIPLE, int(pipeline.vae_scale_factor) * patch)


def built_size(pipeline: Any) -> tuple[int, int] | None:
    """Width and height, in pixels, that the denoiser is built for; None for one that takes any."""
    return getattr(getattr(pipeline, denoiser_name(pipeline)), "picture_size", None)


def own_size(pipeline: Any) -> tuple[int, int]:
    """Width and height, in pixels, of the pictures that the pipeline makes where none are asked for."""
    if built_for := built_size(pipeline):
        return built_for
    denoiser = getattr(pipeline, denoiser_name(pipeline))
    size = getattr(pipeline, "default_sample_size", None) or denoiser.config.sample_size
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    step, factor = multiple(pipeline), int(pipeline.vae_scale_factor)
    sides = [max(LEAST_SIDE, min(side * factor, MOST_SIDE)) for side in (width, height)]
    return tuple(-(-side // step) * step for side in sides)
