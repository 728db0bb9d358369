"""One training pair by its seed: a photographed-looking cat and the cartoon dog in its place."""

from __future__ import annotations

import cv2
import numpy as np

from runtime.errors import InputError
from training.draw_background import draw_background
from training.draw_camera import photograph, tone
from training.draw_cat import draw_cat
from training.draw_dog import draw_dog
from training.draw_scene import sample

VERSION = 1  # raise it whenever a seed's picture changes
LARGEST = 1024


def pair(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The cat and the dog of `seed`, each uint8 RGB `[size,size,3]`.

    The same seed gives the same scene at every size, and the same bytes with the same versions of this package, numpy,
    OpenCV and ThorVG. Raises InputError for a negative seed or a size outside 32..1024.
    """
    if not 32 <= size <= LARGEST or size % 2:
        raise InputError(f"size {size} cannot be drawn: expected an even number from 32 to {LARGEST}, such as 128")
    if seed < 0:
        raise InputError(f"seed {seed} is negative: expected 0 or more")
    rng = np.random.default_rng(np.random.SeedSequence((VERSION, seed)))
    scene = sample(rng)
    photo, clean = draw_background(scene.background, size)
    # The animals are drawn large and shrunk before they are laid over the background.
    large = size * max(2, round(384 / size))
    fur, features = draw_cat(scene, large)
    cat = _over(_shrink(features, size), _over(_shrink(fur, size), photo))
    dog = _over(_shrink(draw_dog(scene, large), size), clean)
    dog = (np.clip(tone(scene, dog, 0.7), 0, 1) * 255 + 0.5).astype(np.uint8)
    return photograph(rng, tone(scene, cat)), dog


def _shrink(layer: np.ndarray, size: int) -> np.ndarray:
    small = cv2.resize(layer, (size, size), interpolation=cv2.INTER_AREA)
    return small if layer.dtype == np.float32 else small.astype(np.float32) / 255


def _over(top: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Lay premultiplied float32 `[s,s,4]` over RGB `[s,s,3]`."""
    return top[..., :3] + picture * (1 - top[..., 3:])
