"""Where things are: curves, and the projection of face coordinates onto the picture.

Face coordinates: x to the picture's right, y down, z towards the camera; the unit is half the head's width and the
origin is the middle of the head.
"""

from __future__ import annotations

import functools
import math

import numpy as np


class Projection:
    """Turns face coordinates into pixels: yaw, pitch and roll (radians), then weak perspective, scale and shift.

    `centre` is in pixels and `scale` is pixels per unit. `stretch` lengthens all that is below the eyes: a long face
    has 0.3, a flat one -0.05.
    """

    def __init__(
        self,
        centre: tuple[float, float],
        scale: float,
        yaw: float,
        pitch: float,
        roll: float,
        stretch: float = 0.0,
    ):
        sin, cos = math.sin, math.cos
        turn = np.array([[cos(yaw), 0, sin(yaw)], [0, 1, 0], [-sin(yaw), 0, cos(yaw)]])
        nod = np.array([[1, 0, 0], [0, cos(pitch), sin(pitch)], [0, -sin(pitch), cos(pitch)]])
        tilt = np.array([[cos(roll), -sin(roll), 0], [sin(roll), cos(roll), 0], [0, 0, 1]])
        self.rotation = tilt @ nod @ turn
        self.centre = np.asarray(centre, dtype=float)
        self.scale = scale
        self.stretch = stretch

    def __call__(self, points: np.ndarray, depth: float | np.ndarray = 0.0) -> np.ndarray:
        """`[n,2]` face coordinates at `depth` (z, one value or `[n]`) to `[n,2]` pixels."""
        points = np.asarray(points, dtype=float)
        x, y = points[:, 0], points[:, 1]
        y = y + self.stretch * np.maximum(y, 0.0)
        turned = self.rotation[:, :1] * x + self.rotation[:, 1:2] * y + self.rotation[:, 2:] * depth
        nearness = self.scale / (1.0 - 0.16 * turned[2])
        return (self.centre[:, None] + nearness * turned[:2]).T

    def face_map(self, depth: float) -> np.ndarray:
        """The affine map `[2,3]` from face coordinates at `depth` to pixels, perspective at the face's middle."""
        middle = self(np.zeros((1, 2)), depth)[0]
        linear = self.scale / (1.0 - 0.16 * depth) * self.rotation[:2, :2]
        return np.column_stack([linear, middle])


def smooth(points: np.ndarray, closed: bool = True, steps: int = 6) -> np.ndarray:
    """A Catmull-Rom curve through `points` `[n,2]` or `[n,3]`, `steps` pieces a segment."""
    points = np.asarray(points, dtype=float)
    ends = (points[-1:], points[:2]) if closed else (points[:1], points[-1:])
    padded = np.concatenate([ends[0], points, ends[1]])
    segments = np.stack([padded[:-3], padded[1:-2], padded[2:-1], padded[3:]], 1)
    curve = (_catmull_rom(steps) @ segments).reshape(-1, points.shape[1])
    return curve if closed else np.concatenate([curve, points[-1:]])


@functools.cache
def _catmull_rom(steps: int) -> np.ndarray:
    """Weights `[steps,4]` of a segment's four control points."""
    t = np.arange(steps) / steps
    weights = [-(t**3) + 2 * t**2 - t, 3 * t**3 - 5 * t**2 + 2, -3 * t**3 + 4 * t**2 + t, t**3 - t**2]
    return 0.5 * np.stack(weights, 1)


def mirror(half: np.ndarray) -> np.ndarray:
    """Close a right-hand half outline (top to bottom, both ends at x = 0) with its left-hand mirror image."""
    half = np.asarray(half, dtype=float)
    return np.concatenate([half, half[-2:0:-1] * (-1, 1)])


_CIRCLE = np.stack([f(np.linspace(0, 2 * math.pi, 28, endpoint=False)) for f in (np.cos, np.sin)], 1)


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> np.ndarray:
    """The outline `[28,2]` of an ellipse turned by `turn` radians."""
    cos, sin = math.cos(turn), math.sin(turn)
    return _CIRCLE @ np.array([[rx * cos, rx * sin], [-ry * sin, ry * cos]]) + (x, y)


def taper(spine: np.ndarray, width: float, start: float = 0.0, end: float = 0.0) -> np.ndarray:
    """A band around `spine` `[n,2]`: `width` wide in the middle, `start` and `end` of that at its ends."""
    padded = np.concatenate([spine[:1], spine, spine[-1:]])
    along = padded[2:] - padded[:-2]
    normal = np.stack([-along[:, 1], along[:, 0]], 1)
    normal /= np.maximum(np.hypot(normal[:, :1], normal[:, 1:]), 1e-9)
    t = np.arange(len(spine)) / (len(spine) - 1)
    bump = np.sin(math.pi * t)
    profile = width / 2 * (bump + (1 - bump) * (start * (1 - t) + end * t))
    side = normal * profile[:, None]
    return np.concatenate([spine + side, (spine - side)[::-1]])
