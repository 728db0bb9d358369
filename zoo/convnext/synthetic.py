"""A drawn stand-in for Tiny-ImageNet: pictures of 200 classes that can be learnt, from a seed, in its own layout.

A class is a shape (5), its stripes' direction (5) and a hue (8). Place, size, brightness, the ground's hue and noise
are drawn for each picture.

    python -m zoo.convnext.synthetic --out build/tiny-synthetic --per-class 50
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.errors import InputError
from runtime.files import write_text
from zoo.command import Parser, bar, run

SHAPES, DIRECTIONS, HUES = 5, 5, 8
CLASSES = SHAPES * DIRECTIONS * HUES
SIDE = 64
_MOST_PER_CLASS = 2000
_NOISE = 12.0


def draw(labels: np.ndarray, seed: int, side: int = SIDE) -> np.ndarray:
    """uint8 `[N,side,side,3]` of int64 `labels` `[N]`, each 0 to 199; the same for the same seed."""
    return np.stack(
        [_picture(int(label), np.random.default_rng((seed, row)), side) for row, label in enumerate(labels)]
    )


def labels_of(per_class: int, classes: int = CLASSES) -> np.ndarray:
    """int64 `[classes * per_class]`: every class as often, spread over the range, in turn."""
    return np.tile(np.arange(classes) * CLASSES // classes, per_class)


def _picture(label: int, rng: np.random.Generator, side: int) -> np.ndarray:
    shape, rest = divmod(label, DIRECTIONS * HUES)
    direction, hue = divmod(rest, HUES)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
    x, y = x - rng.uniform(-0.15, 0.15), y - rng.uniform(-0.15, 0.15)
    inside = _inside(shape, x, y, rng.uniform(0.22, 0.34))
    angle = np.pi * (direction + rng.uniform(-0.2, 0.2)) / DIRECTIONS
    wave = np.sin(2 * np.pi * (9 * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform()))
    colour = _colour((hue + rng.uniform(-0.25, 0.25)) / HUES) * rng.uniform(0.75, 1.0)
    ground = _colour(rng.uniform()) * 0.35 + rng.uniform(0.2, 0.5)
    figure = colour * (0.65 + 0.35 * wave[..., None])
    pixels = 255 * np.where(inside[..., None], figure, ground) + rng.normal(0, _NOISE, (side, side, 3))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _inside(shape: int, x: np.ndarray, y: np.ndarray, r: float) -> np.ndarray:
    """Disc, square, triangle, ring, cross; all of about one area."""
    if shape == 0:
        return x * x + y * y < r * r
    if shape == 1:
        return np.maximum(abs(x), abs(y)) < 0.88 * r
    if shape == 2:
        return (y < 0.8 * r) & (y > 2.2 * abs(x) - 1.2 * r)
    if shape == 3:
        return abs(np.hypot(x, y) - r) < 0.4 * r
    return (np.minimum(abs(x), abs(y)) < 0.4 * r) & (np.maximum(abs(x), abs(y)) < 1.25 * r)


def _colour(hue: float) -> np.ndarray:
    """RGB 0 to 1 of a hue 0 to 1 at full strength."""
    return np.clip(np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1).astype(np.float32)


def write_folder(folder: Path, per_class: int, val_per_class: int, classes: int = CLASSES, seed: int = 0) -> None:
    """Write JPEGs in Tiny-ImageNet's layout, so that whatever reads that reads this. `folder` must not exist.

    Raises InputError for sizes out of range or a folder that is there.
    """
    from runtime.files import write_bytes
    from runtime.images import encode_image

    for name, value, most in (
        ("images of a class", per_class, _MOST_PER_CLASS),
        ("validation images of a class", val_per_class, _MOST_PER_CLASS),
        ("classes", classes, CLASSES),
    ):
        if not 1 <= value <= most:
            raise InputError(f"{value} {name}; expected 1 to {most}")
    if folder.exists():
        raise InputError(f"{folder} exists; give a new folder")
    train, val = labels_of(per_class, classes), labels_of(val_per_class, classes)
    (folder / "val" / "images").mkdir(parents=True)
    for label in sorted(set(train.tolist())):
        (folder / "train" / wnid(label) / "images").mkdir(parents=True)
    with bar("drawing") as progress:
        for row, label in enumerate(train):
            image = _picture(int(label), np.random.default_rng((seed, row)), SIDE)
            name = f"{wnid(label)}_{row // classes}.JPEG"
            write_bytes(folder / "train" / wnid(label) / "images" / name, encode_image(image, ".jpg"))
            progress(row + 1, len(train) + len(val))
        for row, label in enumerate(val):
            image = _picture(int(label), np.random.default_rng((seed + 1, row)), SIDE)
            write_bytes(folder / "val" / "images" / f"val_{row}.JPEG", encode_image(image, ".jpg"))
            progress(len(train) + row + 1, len(train) + len(val))
    lines = [f"val_{row}.JPEG\t{wnid(label)}\t0\t0\t{SIDE - 1}\t{SIDE - 1}" for row, label in enumerate(val)]
    write_text(folder / "val" / "val_annotations.txt", "\n".join(lines) + "\n")
    write_text(folder / "wnids.txt", "\n".join(wnid(label) for label in sorted(set(train.tolist()))) + "\n")


def wnid(label: int) -> str:
    """A name in the manner of WordNet's."""
    return f"n{90000000 + int(label):08d}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the folder; returns the exit code."""
    parser = Parser(
        "python -m zoo.convnext.synthetic",
        "A drawn stand-in for Tiny-ImageNet, in its layout.",
        "python -m zoo.convnext.synthetic --out build/tiny-synthetic --per-class 50",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="must not exist yet")
    parser.add_argument("--per-class", type=int, default=500, metavar="N", help="(default: 500, Tiny-ImageNet's)")
    parser.add_argument("--val-per-class", type=int, default=50, metavar="N", help="(default: 50, Tiny-ImageNet's)")
    parser.add_argument("--classes", type=int, default=CLASSES, metavar="N", help=f"(default: {CLASSES})")
    parser.add_argument("--seed", type=int, default=0)
    return run(parser, _write, arguments)


def _write(args: argparse.Namespace) -> int:
    write_folder(args.out, args.per_class, args.val_per_class, args.classes, args.seed)
    print(f"{args.out}: {args.classes} classes, {args.per_class} and {args.val_per_class} images of each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
