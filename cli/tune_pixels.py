"""The pixels' ways of a cat2dog checkpoint, whose kernels `cat2dog tune --compile-only` compiles for other machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from cat2dog.config import Config
    from engines.kernels.pixels_problem import PixelsProblem


def pixels_problems(config: Config, precision: str) -> list[PixelsProblem]:
    """In and out, with the arithmetic that the export writes; a kernel is the same for every batch."""
    from cat2dog.recipe import Cat2DogRecipe
    from engines.kernels.pixels_problem import PixelsProblem, Step
    from export.image_io import PixelsIn, PixelsOut

    before, after = PixelsIn(*Cat2DogRecipe.pixels), PixelsOut(*Cat2DogRecipe.pixels)
    inward = (Step("mul", _values(before.scale)), Step("add", _values(before.shift)))
    outward = (Step("mul", _values(after.std)), Step("add", _values(after.mean)), Step("round"))
    ways = {"in": inward, "out": (*outward, Step("max", (0.0,)), Step("min", (255.0,)))}
    sides = (config.resolution, config.resolution, 3, config.patch, config.patch)
    return [PixelsProblem(way, precision, *sides, steps=steps) for way, steps in ways.items()]


def compile_pixels(configs: list[Config], precisions: list[str], target: str) -> int:
    """Compile what these checkpoints need and nobody has; returns how many kernels that are."""
    from engines.kernels.pixels_plan import pixels_plan

    needed = [p for config in configs for precision in precisions for p in pixels_problems(config, precision)]
    for problem in dict.fromkeys(needed):
        pixels_plan(problem, target)
    return len(dict.fromkeys(needed))


def _values(tensor: Tensor) -> tuple[float, ...]:
    """One value where all channels have the same."""
    values = [float(value) for value in tensor]
    return tuple(values[:1] if len(set(values)) == 1 else values)
