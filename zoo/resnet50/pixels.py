"""JPEG → crop, as PIXELS.md specifies it: every step gives the same bytes in every language. Needs no torch.

Only the crop is computed of the enlarged picture: each of its pixels depends on sixteen of the picture's own, so that
nothing is lost, and a large photo costs its decoding and little more.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime import codecs
from runtime.errors import InputError

CROP = 100
PAD = 62
MOST_BYTES = 64 << 20
MOST_PIXELS = 50_000_000
# Enlarged by 3/2, a side must have CROP pixels.
LEAST_SIDE = 67
MOST_SEED = (1 << 64) - 1

# The bicubic kernel (a = -1/2) at the three places where a pixel of the enlarged picture can lie between two of the
# picture's own, 5/6, 1/2 and 1/6 after the first of them; times 432, which makes whole numbers of all weights.
_WEIGHTS = np.array([[-5, 57, 405, -25], [-27, 243, 243, -27], [-25, 405, 57, -5]], np.int32)
_ONE = 432

_MASK = MOST_SEED
_GOLDEN = 0x9E3779B97F4A7C15


def draw(seed: int, number: int, below: int) -> int:
    """The `number`-th draw from 0 to `below` - 1 of SplitMix64 (Steele, Lea and Flood, 2014) started with `seed`."""
    z = (seed + (number + 1) * _GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    z ^= z >> 31
    return ((z >> 32) * below) >> 32


def place(size: tuple[int, int], seed: int, index: int) -> tuple[int, int]:
    """Top and left of the crop in the enlarged picture, for a picture of `size` (height, width).

    `index` counts the pictures of a run from 0. Raises InputError for a picture that is too small.
    """
    if min(size) < LEAST_SIDE:
        raise InputError(
            f"the picture is {size[1]} x {size[0]} pixels; expected at least {LEAST_SIDE} x {LEAST_SIDE}, of which "
            f"{CROP} x {CROP} are cut after enlarging by 1.5"
        )
    top, left = (draw(seed, 2 * index + axis, side * 3 // 2 - CROP + 1) for axis, side in enumerate(size))
    return top, left


def cut(picture: np.ndarray, top: int, left: int) -> np.ndarray:
    """The crop at `top`, `left` of a picture enlarged by 1.5: uint8 `[H,W,3]` to uint8 `[100,100,3]`."""
    rows, row_weights = _taps(top, picture.shape[0])
    columns, column_weights = _taps(left, picture.shape[1])
    y, x = rows.min(), columns.min()
    # int32 holds 255 * 492 * 492, the largest sum there can be.
    near = picture[y : rows.max() + 1, x : columns.max() + 1].astype(np.int32)
    tall = sum(near[rows[:, tap] - y] * row_weights[:, tap, None, None] for tap in range(4))
    wide = sum(tall[:, columns[:, tap] - x] * column_weights[:, tap, None] for tap in range(4))
    # Rounded once, half upwards.
    return np.clip((wide + _ONE * _ONE // 2) // (_ONE * _ONE), 0, 255).astype(np.uint8)


def _taps(start: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of CROP pixels from `start` on: which four of `size` pixels, and their weights, both `[100,4]`."""
    position = np.arange(start, start + CROP)
    first = (4 * position - 1) // 6
    # Beyond the edge the edge goes on.
    return np.clip(first[:, None] + np.arange(-1, 3), 0, size - 1), _WEIGHTS[position % 3]


def decode(data: bytes, name: str = "the picture") -> np.ndarray:
    """A JPEG's pixels as they are stored, uint8 RGB `[H,W,3]`, by libjpeg-turbo with slow DCT and smooth upsampling.

    Raises InputError for anything else, for a damaged file (no decoder's guess is taken; without simplejpeg, Pillow
    tells of less damage), and for more than MOST_PIXELS.
    """
    from PIL import JpegImagePlugin

    if not data.startswith(b"\xff\xd8\xff"):
        raise InputError(f"{name} is no JPEG; expected one: convert it first")
    try:
        picture = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError, LookupError) as error:
        raise InputError(f"{name} is damaged: {_short(error)}") from error
    with picture:
        width, height = picture.size
        if width * height > MOST_PIXELS:
            raise InputError(
                f"{name} is {width} x {height} pixels, more than the {MOST_PIXELS // 1_000_000} million allowed"
            )
        if picture.mode not in ("RGB", "L"):
            raise InputError(f"{name} is a {picture.mode} JPEG; expected colour or grey: convert it first")
        pixels = codecs.decode_jpeg(data, picture.size, 1)
        if pixels is None and codecs.in_use()["JPEG"] == "simplejpeg":
            raise InputError(f"{name} is damaged: libjpeg-turbo would have to guess")
        return _by_pillow(picture, name) if pixels is None else pixels


def _by_pillow(picture: Any, name: str) -> np.ndarray:
    from PIL import features

    if not features.check("libjpeg_turbo"):
        raise InputError("Pillow has another JPEG library here, whose pixels differ: pip install simplejpeg")
    try:
        return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{name} is damaged: {_short(error)}") from error


def read_crop(path: str | os.PathLike[str], seed: int, index: int) -> np.ndarray:
    """The crop of a JPEG file, uint8 `[100,100,3]`: the `index`-th picture of a run with this `seed`."""
    picture = decode(read_file(path), os.fspath(path))
    try:
        return cut(picture, *place(picture.shape[:2], seed, index))
    except InputError as error:
        raise InputError(f"{os.fspath(path)}: {error}") from error


def find_jpegs(inputs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Files in the order given, of each folder its own JPEG files sorted by name; hidden ones are passed over.

    Raises InputError for a missing path, and for a folder without any.
    """
    found: list[Path] = []
    for given in map(Path, inputs):
        try:
            if not given.is_dir():
                if not given.exists():
                    raise InputError(f"{given} does not exist; expected a JPEG file or a folder of them")
                found.append(given)
                continue
            names = sorted(each.name for each in os.scandir(given) if each.is_file())
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"{given} cannot be read: {reason}") from error
        names = [name for name in names if not name.startswith(".") and name.lower().endswith((".jpg", ".jpeg"))]
        if not names:
            raise InputError(f"folder {given} holds no JPEG; expected files ending in .jpg or .jpeg")
        found += [given / name for name in names]
    return found


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a picture file. Raises InputError where it cannot be read or has more than MOST_BYTES."""
    path = Path(path)
    try:
        if not path.is_file():
            raise InputError(f"{path} does not exist or is no file; expected a JPEG file")
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} has more than {MOST_BYTES >> 20} MiB; shrink it first")
        with open(path, "rb") as file:
            return file.read(MOST_BYTES)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
