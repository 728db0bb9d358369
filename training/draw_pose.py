"""Where things are: curves, and the projection of face coordinates onto the picture.

Face coordinates: x to the picture's right, y down, z towards the camera; the unit is half the head's width and the
origin is the middle of the head.
"""

from __future__ import annotations

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
        solid = np.empty((len(points), 3))
        solid[:, :2] = points
        solid[:, 1] += self.stretch * np.maximum(points[:, 1], 0.0)
        solid[:, 2] = depth
        turned = solid @ self.rotation.T
        nearness = 1.0 / (1.0 - 0.16 * turned[:, 2:])
        return self.centre + self.scale * nearness * turned[:, :2]

    def face_map(self, depth: float) -> np.ndarray:
        """The affine map `[2,3]` from face coordinates at `depth` to pixels, perspective at the face's middle."""
        middle = self(np.zeros((1, 2)), depth)[0]
        linear = self.scale / (1.0 - 0.16 * depth) * self.rotation[:2, :2]
        return np.column_stack([linear, middle])


def smooth(points: np.ndarray, closed: bool = True, steps: int = 6) -> np.ndarray:
    """A Catmull-Rom curve through `points` `[n,2]` or `[n,3]`, `steps` pieces a segment."""
    points = np.asarray(points, dtype=float)
    if closed:
        before, after, last = np.roll(points, 1, 0), np.roll(points, -1, 0), np.roll(points, -2, 0)
    else:
        padded = np.concatenate([points[:1], points, points[-1:]])
        before, points, after, last = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = (np.arange(steps) / steps)[None, :, None]
    a, b, c, d = before[:, None], points[:, None], after[:, None], last[:, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    curve = curve.reshape(-1, points.shape[1])
    return curve if closed else np.concatenate([curve, after[-1:]])


def mirror(half: np.ndarray) -> np.ndarray:
    """Close a right-hand half outline (top to bottom, both ends at x = 0) with its left-hand mirror image."""
    half = np.asarray(half, dtype=float)
    return np.concatenate([half, half[-2:0:-1] * (-1, 1)])


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0, steps: int = 28) -> np.ndarray:
    """The outline `[steps,2]` of an ellipse turned by `turn` radians."""
    angle = np.linspace(0, 2 * math.pi, steps, endpoint=False)
    dx, dy = rx * np.cos(angle), ry * np.sin(angle)
    return np.stack([x + dx * math.cos(turn) - dy * math.sin(turn), y + dx * math.sin(turn) + dy * math.cos(turn)], 1)


def taper(spine: np.ndarray, width: float, start: float = 0.0, end: float = 0.0) -> np.ndarray:
    """A band around `spine` `[n,2]`: `width` wide in the middle, `start` and `end` of that at its ends."""
    along = np.gradient(spine, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    normal = along[:, ::-1] * (-1, 1)
    t = np.linspace(0, 1, len(spine))
    bump = np.sin(math.pi * t)
    profile = width / 2 * (bump + (1 - bump) * (start * (1 - t) + end * t))
    side = normal * profile[:, None]
    return np.concatenate([spine + side, (spine - side)[::-1]])
