"""Pictures for a server of inverting networks: cats, the dogs they must become, and what is wrong in all ways."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from runtime.images import read_image

SIDE = 32


def picture(seed, size=(60, 50), kind="JPEG"):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def dog_of(file, side=SIDE):
    return 255 - read_image(file, side)


def pixels(file):
    return np.asarray(Image.open(io.BytesIO(file)))


GOOD = [picture(seed, kind=kind) for seed in range(6) for kind in ("JPEG", "PNG")]
BAD = [
    ({"image": GOOD[0][:400]}, 400, "damaged or truncated"),
    ({"image": b"text"}, 400, "is not an image"),
    ({"image": b""}, 400, "is empty"),
    ({"image": picture(1, (400, 300))}, 400, "400 x 300 pixels, more than the 0.1 million allowed"),
    ({"image": GOOD[0] + b"\0" * 300_000}, 413, "are taken"),
    ({"image": GOOD[0], "resolution": 7}, 400, "resolution 7 is not served; expected one of 32, 64"),
    ({"image": GOOD[0], "format": "tiff"}, 400, "expected one of png, jpeg, webp"),
    ({"image": GOOD[0], "quality": 101, "format": "jpeg"}, 400, "quality is 101; expected 1 to 100"),
    ({"image": GOOD[0], "colour": "red"}, 400, "colour"),
    ({"resolution": 32}, 400, "image"),
]
