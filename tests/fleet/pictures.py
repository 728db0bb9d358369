"""Tiny pictures, an inverter that draws them, and what must be there after a run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from fleet.task import Identity
from runtime.place import Place
from tests.bench.inverter import write_inverter

IDENTITY = Identity("inverter", "fp32", "0" * 64, "1" * 64)
SIDE = 8


def pixels(number: int) -> np.ndarray:
    """uint8 `[8,8,3]` that tells its number."""
    flat = np.full(SIDE * SIDE * 3, number % 251, np.uint8)
    flat[:4] = np.frombuffer(number.to_bytes(4, "little"), np.uint8)
    return flat.reshape(SIDE, SIDE, 3)


def write_pictures(place: Place, count: int) -> None:
    """`{number}.png` for all numbers below `count`."""
    for number in range(count):
        place.write(f"{number:06d}.png", png(number))


def png(number: int) -> bytes:
    """The picture's file."""
    file = io.BytesIO()
    Image.fromarray(pixels(number)).save(file, "PNG")
    return file.getvalue()


def check_dogs(place: Place, numbers: range) -> None:
    """Exactly one whole dog for each number, each of its own cat, and no other picture."""
    names = sorted(entry.name for entry in place.entries() if not entry.name.endswith(".json"))
    assert names == [f"{number:06d}.png" for number in numbers]
    for number in numbers:
        dog = np.asarray(Image.open(io.BytesIO(place.read(f"{number:06d}.png", 1 << 20))))
        assert np.array_equal(dog, 255 - pixels(number)), number


def inverter(folder: Path) -> Path:
    """The network."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_inverter(folder / "inverter.onnx", SIDE)
