"""What is asked of a text-to-image pipeline, and the bounds of it. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from runtime.errors import InputError
from zoo.text2image.adjustment import NONE, Adjustment

PROMPT_BYTES = 4096
MOST_STEPS = 200
MOST_GUIDANCE = 50.0
MOST_SEED = 2**31 - 1
LEAST_SIDE, MOST_SIDE = 16, 2048


@dataclass(frozen=True)
class Request:
    """One picture to be made. What is None is left to the pipeline's own default.

    `image`, uint8 `[H,W,3]`, is where denoising begins (image-to-image), as far as `strength` (more than 0, to 1) lets
    it; without one it begins with noise of `seed`. Every `every` steps the picture so far is given, too; 0 gives none.
    `upscale` wants the last picture enlarged. Raises InputError for a value out of its bounds.
    """

    prompt: str
    negative_prompt: str = ""
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    width: int | None = None
    height: int | None = None
    image: np.ndarray | None = field(default=None, repr=False, compare=False)
    strength: float = 0.8
    every: int = 0
    adjustment: Adjustment = NONE
    upscale: bool = False

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt"):
            size = len(getattr(self, name).encode())
            if size > PROMPT_BYTES:
                raise InputError(f"{name.replace('_', ' ')} has {size} bytes; at most {PROMPT_BYTES} are taken")
        _within("steps", self.steps, 1, MOST_STEPS)
        _within("guidance", self.guidance, 0, MOST_GUIDANCE)
        _within("seed", self.seed, 0, MOST_SEED)
        _within("every", self.every, 0, MOST_STEPS)
        for name in ("width", "height"):
            _within(name, getattr(self, name), LEAST_SIDE, MOST_SIDE)
        if not 0 < self.strength <= 1:
            raise InputError(f"strength {self.strength:g} was given; expected more than 0, to 1 (1: begin with noise)")
        if self.image is not None:
            _check_image(self.image)


def decoded(prompt: bytes) -> str:
    """A prompt's bytes as text. Raises InputError where they are not UTF-8 or too many."""
    if len(prompt) > PROMPT_BYTES:
        raise InputError(f"the prompt has {len(prompt)} bytes; at most {PROMPT_BYTES} are taken")
    try:
        return prompt.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"the prompt is not UTF-8 (byte {error.start}); send text as UTF-8") from error


def check_side(name: str, side: int, multiple: int) -> None:
    """Raise InputError, with the nearest good one, for a side in pixels that is no multiple of what the model needs."""
    if side % multiple:
        nearest = min(max(multiple, round(side / multiple) * multiple), MOST_SIDE // multiple * multiple)
        raise InputError(
            f"{name} {side} was given; this pipeline takes multiples of {multiple}: the nearest is {nearest}"
        )


def _within(name: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not (math.isfinite(value) and least <= value <= most):
        raise InputError(f"{name} {value:g} was given; expected {least:g} to {most:g}")


def _check_image(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"an image of {image.dtype} {list(image.shape)} was given; expected uint8 [H,W,3]")
    if max(image.shape[:2]) > MOST_SIDE:
        raise InputError(f"an image of {image.shape[1]} x {image.shape[0]} was given; at most {MOST_SIDE} a side")
