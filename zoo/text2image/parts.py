"""What a pipeline is made of, whatever its family: its denoiser, and the sizes of pictures that it takes."""

from __future__ import annotations

import math
from typing import Any

from runtime.errors import InputError
from zoo.text2image.request import LEAST_SIDE, MOST_SIDE

DENOISERS = ("unet", "transformer")
# Pipelines ask for multiples of 8 even where their decoder enlarges less.
_LEAST_MULTIPLE = 8


def denoiser_name(pipeline: Any) -> str:
    """`unet` or `transformer`. Raises InputError for a pipeline without one, or with several that take turns."""
    have = [name for name in DENOISERS if getattr(pipeline, name, None) is not None]
    if len(have) != 1 or getattr(pipeline, "transformer_2", None) is not None:
        raise InputError(f"{type(pipeline).__name__} has no single denoiser; expected one of {', '.join(DENOISERS)}")
    return have[0]


def multiple(pipeline: Any) -> int:
    """Of what both sides of a picture, in pixels, must be multiples. Transformers see patches of 2 x 2 latents."""
    patch = 2 if denoiser_name(pipeline) == "transformer" else 1
    return math.lcm(_LEAST_MULTIPLE, int(pipeline.vae_scale_factor) * patch)


def own_size(pipeline: Any) -> tuple[int, int]:
    """Width and height, in pixels, of the pictures that the pipeline makes where none are asked for."""
    denoiser = getattr(pipeline, denoiser_name(pipeline))
    size = getattr(denoiser, "latent_size", None) or getattr(pipeline, "default_sample_size", None)
    size = size or denoiser.config.sample_size
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    step, factor = multiple(pipeline), int(pipeline.vae_scale_factor)
    sides = [max(LEAST_SIDE, min(side * factor, MOST_SIDE)) for side in (width, height)]
    return tuple(-(-side // step) * step for side in sides)
