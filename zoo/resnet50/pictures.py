"""Seeded drawings, where no photos are at hand: to judge the recipe by, and to compare languages on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zoo.resnet50.pixels import cut, place

# Odd sizes, the smallest that are allowed among them, one wide and one tall.
SIZES = ((67, 67), (68, 101), (224, 224), (97, 331), (375, 250), (301, 299), (480, 640), (123, 456), (640, 427))


def drawn(seed: int, size: tuple[int, int] = (240, 320)) -> np.ndarray:
    """A drawing of `size` (height, width) pixels, uint8 `[H,W,3]`: a coloured slope, stripes, spots and grain."""
    generator = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(size)
    slope = generator.uniform(-200, 200, (2, 3))
    picture = generator.uniform(60, 200, 3) + y[..., None] * slope[0] + x[..., None] * slope[1]
    waves = np.sin(generator.uniform(10, 90) * (y * generator.normal() + x * generator.normal()))
    picture += waves[..., None] * generator.uniform(-70, 70, 3)
    for _ in range(generator.integers(6, 20)):
        middle, radius = generator.uniform(0, 1, 2), generator.uniform(0.02, 0.2, 2)
        inside = ((y - middle[0]) / radius[0]) ** 2 + ((x - middle[1]) / radius[1]) ** 2 < 1
        picture[inside] = generator.uniform(0, 255, 3)
    picture += generator.normal(0, generator.uniform(0, 25), picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def drawn_crops(count: int, seed: int = 0) -> np.ndarray:
    """Crops of `count` drawings, uint8 `[count,100,100,3]`."""
    pictures = [drawn(seed + number) for number in range(count)]
    return np.stack([cut(each, *place(each.shape[:2], seed, number)) for number, each in enumerate(pictures)])


def write_jpegs(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Write `count` drawings as JPEG files of differing sizes, samplings and qualities, every seventh grey."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        picture = Image.fromarray(drawn(seed + number, SIZES[number % len(SIZES)]))
        path = folder / f"drawn_{number:03d}.jpg"
        (picture.convert("L") if number % 7 == 6 else picture).save(
            path, quality=60 + 7 * number % 40, subsampling=number % 3, progressive=number % 4 == 3
        )
        paths.append(path)
    return paths
