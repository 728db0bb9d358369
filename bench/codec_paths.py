"""From JPEG bytes to the array a network takes, and from its answer to bytes: as research code does, and as we do."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CodecPath:
    """`decode` makes uint8 `[R,R,3]` of JPEG bytes, `encode` bytes of uint8 `[R,R,3]`."""

    decode: Callable[[bytes], np.ndarray]
    encode: Callable[[np.ndarray], bytes]


def codec_path(name: str, side: int) -> CodecPath:
    """ "research" is plain Pillow to PNG with its defaults; ".png", ".jpg" and ".webp" are the runtime's own way."""
    from runtime.images import encode_image, read_image

    if name == "research":
        return CodecPath(lambda data: _plain_decode(data, side), _plain_encode)
    return CodecPath(lambda data: read_image(data, side), lambda image: encode_image(image, name))


def _plain_decode(data: bytes, side: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((side, side), Image.Resampling.BICUBIC))


def _plain_encode(image: np.ndarray) -> bytes:
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    return encoded.getvalue()
