"""What is behind the animal: a few flat shapes for the dog, and for the cat the same with texture and focus blur."""

from __future__ import annotations

import cv2
import numpy as np

from training.draw_canvas import Canvas
from training.draw_noise import clouds
from training.draw_pose import ellipse, smooth, taper
from training.draw_scene import Background, mix, shade


def _blobs(canvas: Canvas, size: int, rng: np.random.Generator, colours, count: int, low: float, high: float, alpha):
    for _ in range(count):
        radius = size * rng.uniform(low, high)
        x, y = size * rng.uniform(-0.1, 1.1, 2)
        colour = shade(colours[rng.integers(len(colours))], rng.uniform(0.8, 1.3))
        canvas.fill(ellipse(x, y, radius, radius * rng.uniform(0.8, 1.2), rng.uniform(0, 3)), colour, alpha)


def _box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _draw(background: Background, size: int, rng: np.random.Generator) -> np.ndarray:
    canvas = Canvas(size)
    first, second, third, fourth, accent = background.colours
    kind = background.kind
    canvas.fill(_box(0, 0, size, size), first)
    if kind in ("gradient", "studio"):
        angle, steps = rng.uniform(0, 6.28), 14
        direction = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-direction[1], direction[0]])
        for step in range(1, steps):
            near = size * (0.5 + direction * (step / steps - 0.5) * 1.4)
            corners = [near + across * 2 * size, near - across * 2 * size]
            corners += [corners[1] + direction * 3 * size, corners[0] + direction * 3 * size]
            canvas.fill(np.array(corners), mix(first, second, step / (steps - 1)))
    elif kind == "bokeh":
        _blobs(canvas, size, rng, background.colours[:4], 8, 0.15, 0.4, 0.6)
        _blobs(canvas, size, rng, (accent, third), int(rng.integers(5, 16)), 0.02, 0.09, 0.7)
    elif kind == "room":
        floor = rng.uniform(0.5, 0.85) * size
        slope = rng.normal(0, 0.06) * size
        canvas.fill(np.array([[0, floor], [size, floor + slope], [size, size], [0, size]]), second)
        for _ in range(int(rng.integers(1, 4))):
            x, width, top = rng.uniform(-0.1, 0.9), rng.uniform(0.1, 0.4), rng.uniform(-0.1, 0.6)
            canvas.fill(
                _box(x * size, top * size, (x + width) * size, floor + rng.uniform(0, 0.1) * size),
                (third, fourth, accent)[rng.integers(3)],
            )
    elif kind == "window":
        x, y, width, height = (
            rng.uniform(-0.2, 0.5),
            rng.uniform(-0.3, 0.2),
            rng.uniform(0.4, 0.7),
            rng.uniform(0.5, 0.9),
        )
        frame = shade(second, 0.8)
        canvas.fill(_box(x * size, y * size, (x + width) * size, (y + height) * size), mix(third, (1, 1, 1), 0.7))
        for part in (0.0, 0.5, 1.0):
            canvas.stroke(np.array([[x + width * part, y], [x + width * part, y + height]]) * size, frame, size * 0.03)
        canvas.stroke(np.array([[x, y + height], [x + width, y + height]]) * size, frame, size * 0.04)
    elif kind == "grass":
        horizon = rng.uniform(0.0, 0.6) * size
        canvas.fill(_box(0, 0, size, horizon), mix(accent, (0.75, 0.85, 0.95), 0.6))
        _blobs(canvas, size, rng, background.colours[:4], 10, 0.05, 0.25, 0.5)
        for _ in range(26):
            x, y, length = rng.uniform(0, size), rng.uniform(horizon, 1.1 * size), size * rng.uniform(0.1, 0.35)
            lean = length * rng.normal(0, 0.35)
            spine = smooth(np.array([[x, y], [x + lean * 0.3, y - length * 0.5], [x + lean, y - length]]), False, 4)
            green = shade(background.colours[rng.integers(4)], rng.uniform(0.7, 1.4))
            canvas.fill(taper(spine, size * 0.02, 0.6), green, 0.8)
    elif kind == "leaves":
        for _ in range(34):
            x, y, radius = rng.uniform(0, size), rng.uniform(0, size), size * rng.uniform(0.05, 0.16)
            leaf = shade(background.colours[rng.integers(4)], rng.uniform(0.5, 1.5))
            canvas.fill(ellipse(x, y, radius, radius * rng.uniform(0.3, 0.6), rng.uniform(0, 3.1)), leaf, 0.85)
    else:  # blanket
        angle = rng.uniform(0, 3.14)
        direction = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-direction[1], direction[0]])
        for step in range(int(rng.integers(3, 9))):
            middle = size * (0.5 + direction * rng.uniform(-0.7, 0.7))
            band = np.array([middle - across * size, middle + across * size])
            canvas.stroke(band, background.colours[1 + step % 4], size * rng.uniform(0.02, 0.14), 0.8)
    return canvas.finish()[..., :3].astype(np.float32) / 255


def draw_background(background: Background, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The background behind the cat and behind the dog, each float32 RGB `[size,size,3]` in 0..1.

    The dog's is smooth: no finer than what the focus blur leaves visible in the cat's.
    """
    rng = np.random.default_rng(background.seed)
    flat = _draw(background, size, rng)
    photo = cv2.GaussianBlur(flat, (0, 0), max(0.6, background.blur * size))
    small = cv2.resize(flat, (64, 64), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 64 * max(0.03, 1.3 * background.blur), borderType=cv2.BORDER_REPLICATE)
    dog = cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)
    texture = clouds(rng, size, 5, 3) * rng.uniform(0.0, 0.05)
    if background.kind in ("blanket", "grass", "room"):
        texture = texture + clouds(rng, size, 48, 2) * rng.uniform(0.0, 0.06)
    photo = photo * (1 + texture)[..., None]
    return photo, dog * 0.93 + 0.07
