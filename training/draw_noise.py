"""Noise without shapes: soft clouds, and fur as noise smeared along the way hair grows."""

from __future__ import annotations

import functools

import cv2
import numpy as np

FUR_EXTENT = 2.4  # the fur sheets cover face coordinates from -FUR_EXTENT to FUR_EXTENT
FUR_PIXELS = 640
_SHEETS = 6


def clouds(rng: np.random.Generator, size: int, cells: float, octaves: int = 3) -> np.ndarray:
    """Float32 `[size,size]` noise of mean about 0 and deviation about 1; the largest blobs are `size / cells` wide."""
    total = np.zeros((size, size), dtype=np.float32)
    weight = 0.0
    for octave in range(octaves):
        grid = min(size, max(2, int(cells * 2**octave) + 1))
        noise = rng.standard_normal((grid, grid), dtype=np.float32)
        part = 0.55**octave
        total += part * cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
        weight += part * part
    return total / (0.8 * weight**0.5)


def _growth() -> tuple[np.ndarray, np.ndarray]:
    """Which way hair lies, as a unit vector field: away from the nose on the face, downwards on the body."""
    axis = np.linspace(-FUR_EXTENT, FUR_EXTENT, FUR_PIXELS, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    dx, dy = x * 1.15, (y - 0.28) * 0.9
    body = np.clip((np.hypot(x, y) - 1.0) * 2.0, 0, 1) * (y > 0)
    dx, dy = dx * (1 - body) + 0.25 * x * body, dy * (1 - body) + body
    length = np.maximum(np.hypot(dx, dy), 1e-3)
    return dx / length, dy / length


def _smear(noise: np.ndarray, dx: np.ndarray, dy: np.ndarray, length: int) -> np.ndarray:
    """Line integral convolution (Cabral and Leedom, 1993): the mean of `noise` along `length` steps of the field."""
    rows, columns = np.indices(noise.shape, dtype=np.float32)
    total, weight = noise.copy(), 1.0
    x, y = columns, rows
    for step in range(1, length):
        x = x - cv2.remap(dx, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        y = y - cv2.remap(dy, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        part = 1 - step / length  # a hair is thick at its root and fades at its tip
        total += part * cv2.remap(noise, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        weight += part * part
    return total / weight**0.5


def fur_sheet(number: int) -> np.ndarray:
    """Sheet `number % 6`: float32 `[P,P,4]` of fine hair, coarse tufts, and the hair's direction (x, y).

    The six are made once a process, in a quarter of a second each, and placed anew in every picture.
    """
    return _sheet(number % _SHEETS)


@functools.cache
def _sheet(number: int) -> np.ndarray:
    rng = np.random.default_rng((2021, number))
    dx, dy = _growth()
    bend = 0.28 * clouds(rng, FUR_PIXELS, 4 + number, 2)
    sin, cos = np.sin(bend), np.cos(bend)
    dx, dy = dx * cos - dy * sin, dx * sin + dy * cos
    fine = rng.standard_normal((FUR_PIXELS, FUR_PIXELS), dtype=np.float32)
    coarse = cv2.GaussianBlur(rng.standard_normal((FUR_PIXELS, FUR_PIXELS), dtype=np.float32), (0, 0), 2.2)
    fine = _smear(cv2.GaussianBlur(fine, (0, 0), 0.7), dx, dy, 10 + 3 * number)
    coarse = _smear(coarse, dx, dy, 26 + 5 * number)
    return np.dstack([fine / fine.std(), coarse / coarse.std(), dx, dy]).astype(np.float32)
