"""The cartoon dog: the cat's pose, colours and background in flat shapes with dark outlines and one step of shadow."""

from __future__ import annotations

import numpy as np

from training.draw_canvas import Canvas
from training.draw_cat import WHITE, body_outline, body_projection, head_projection, surface
from training.draw_pose import Projection, ellipse, mirror, smooth, taper
from training.draw_scene import Colour, Scene, mix, shade

INK: Colour = (0.13, 0.09, 0.09)
TONGUE: Colour = (0.95, 0.45, 0.5)
COLLAR: Colour = (0.85, 0.18, 0.16)
TAG: Colour = (0.98, 0.8, 0.25)
LINE = 0.055  # width of an outline, in half heads


def vivid(colour: Colour) -> Colour:
    """A cartoon's version of a fur colour: more saturated, never quite black."""
    grey = sum(colour) / 3
    return tuple(min(1.0, max(0.0, 0.09 + 0.91 * (grey + (c - grey) * 1.25))) for c in colour)


def head_outline(scene: Scene) -> np.ndarray:
    """The dog's head `[n,2]` in face coordinates: a dome above, narrow below, no cheeks."""
    cheek = scene.build.cheek
    half = [
        (0, -0.88),
        (0.42, -0.84),
        (0.76, -0.58),
        (0.9 * cheek, -0.15),
        (0.86 * cheek, 0.3),
        (0.62, 0.7),
        (0.3, 0.92),
        (0, 0.95),
    ]
    return smooth(mirror(half))


def ear_outline(scene: Scene, side: int) -> np.ndarray:
    """One hanging ear `[n,2]` in face coordinates; `side` is -1 or 1."""
    long, wide = scene.build.ear_height, scene.build.ear_width
    points = np.array(
        [
            (0.42, -0.84),
            (0.75, -0.93),
            (1.08 * wide, -0.66),
            (1.32 * wide, 0.0),
            (1.38 * wide, 0.5 * long),
            (1.16 * wide, 0.86 * long),
            (0.93, 0.62 * long),
            (0.83, 0.1),
            (0.66, -0.42),
        ]
    )
    return smooth(points) * (side, 1)


def muzzle_outline(scene: Scene) -> np.ndarray:
    """The muzzle `[n,2]` seen from in front."""
    wide = scene.build.muzzle
    half = [
        (0, -0.02),
        (0.2, 0.02),
        (0.36 * wide, 0.2),
        (0.56 * wide, 0.4),
        (0.62 * wide, 0.62),
        (0.48 * wide, 0.82),
        (0.2, 0.84),
        (0, 0.8),
    ]
    return smooth(mirror(half))


class _Pen:
    """Fills with an outline, on one canvas, through one projection."""

    def __init__(self, canvas: Canvas, project: Projection):
        self.canvas, self.project = canvas, project
        self.width = LINE * project.scale

    def draw(self, shape: np.ndarray, colour: Colour, depth: float | np.ndarray = 0.0, line: float = 1.0) -> np.ndarray:
        points = self.project(shape, depth)
        self.canvas.fill(points, colour)
        if line:
            self.canvas.stroke(points, INK, self.width * line, closed=True)
        return points

    def shadow(self, outline: np.ndarray, colour: Colour, shift: np.ndarray) -> None:
        """Cel shading: what of `outline` (pixels) is left when the same shape, moved by `shift`, is taken away."""
        self.canvas.fill(outline, shade(colour, 0.76))
        self.canvas.fill(outline + shift, colour, 1.0, outline)

    def ink(self, outline: np.ndarray, line: float = 1.0) -> None:
        self.canvas.stroke(outline, INK, self.width * line, closed=True)


def _ear_colour(scene: Scene, side: int) -> Colour:
    coat = scene.coat
    for x, y, _, ry, which in coat.patches:
        if x * side > 0 and y - ry < -0.55:
            return coat.dark if which else coat.second
    if coat.kind == "calico":
        return mix(coat.base, coat.dark, 0.3)
    if coat.kind in ("tuxedo", "bicolour", "solid"):
        return shade(coat.base, 0.78)
    return mix(coat.dark, coat.base, 0.15)


def _body(pen: _Pen, scene: Scene, shift: np.ndarray) -> None:
    coat, project = scene.coat, pen.project
    outline = project(body_outline(scene), -0.35)
    base = vivid(coat.base)
    pen.shadow(outline, base, shift)
    if coat.kind == "calico":
        pen.canvas.fill(project(ellipse(-1.2, 1.9, 0.8, 1.0), -0.35), vivid(coat.second), 1.0, outline)
        pen.canvas.fill(project(ellipse(1.3, 2.3, 0.7, 0.9), -0.35), vivid(coat.dark), 1.0, outline)
    if coat.kind != "points":
        bib = 0.62 if coat.white > 0 else 0.5
        chest = smooth(mirror([(0, 0.4), (bib, 0.9), (bib * 0.85, 1.8), (0.3, 2.6), (0, 2.8)]))
        pen.canvas.fill(project(chest, -0.2), vivid(coat.light), 1.0, outline)
    pen.ink(outline)
    wide = 0.8 * scene.build.shoulders
    band = smooth(np.array([(-wide, 0.82), (-wide * 0.5, 1.08), (0, 1.16), (wide * 0.5, 1.08), (wide, 0.82)]), False)
    line = project(band, 0.0)
    pen.canvas.stroke(line, INK, 0.26 * project.scale)
    pen.canvas.stroke(line, COLLAR, 0.17 * project.scale)
    tag = project(ellipse(0, 1.34, 0.13, 0.13), 0.05)
    pen.canvas.fill(tag, TAG)
    pen.ink(tag, 0.8)


def _markings(pen: _Pen, scene: Scene, outline: np.ndarray) -> None:
    coat, canvas, project = scene.coat, pen.canvas, pen.project

    def patch(shape: np.ndarray, colour: Colour) -> None:
        canvas.fill(project(shape, surface(shape)), colour, 1.0, outline)

    for x, y, rx, ry, which in coat.patches:
        patch(ellipse(x, y, rx, ry, 0.4 * x), vivid(coat.dark if which else coat.second))
    if coat.kind == "tabby":
        for side in (-1, 0, 1):
            top, low = (side * 0.3, -0.86), (side * 0.19, -0.46)
            middle = ((top[0] + low[0]) / 2 + side * 0.02, -0.66)
            patch(taper(smooth(np.array([top, middle, low]), False), 0.14, 0.7, 0.15), vivid(coat.dark))
    if coat.white > 0.6:
        width = 0.1 + 0.16 * coat.white
        patch(smooth(mirror([(0, -0.75), (width * 0.6, -0.4), (width, 0.0), (0.35, 0.4), (0, 0.6)])), vivid(coat.light))
    if coat.kind == "points":
        patch(ellipse(0, 0.1, 0.62, 0.5), vivid(coat.dark))


def _eyes(pen: _Pen, scene: Scene, outline: np.ndarray) -> None:
    build, pose, coat = scene.build, scene.pose, scene.coat
    canvas, project = pen.canvas, pen.project
    tall = 0.27 * (0.55 + 0.45 * build.lids) * build.eye
    for side in (-1, 1):
        x, y = side * 0.36 * build.eye_gap, -0.24
        depth = 0.72
        white = project(ellipse(x, y, 0.2 * build.eye, tall, side * 0.12), depth)
        canvas.fill(white, (1.0, 1.0, 0.98))
        at = (x + 0.06 * pose.gaze_x - side * 0.02, y + 0.05 * pose.gaze_y + 0.03)
        canvas.fill(
            project(ellipse(*at, 0.15 * build.eye, 0.17 * build.eye), depth), vivid(shade(coat.iris, 0.8)), 1.0, white
        )
        canvas.fill(project(ellipse(*at, 0.1 * build.eye, 0.12 * build.eye), depth), (0.05, 0.04, 0.05), 1.0, white)
        canvas.fill(project(ellipse(at[0] - 0.045, at[1] - 0.06, 0.045, 0.05), depth), WHITE)
        pen.ink(white, 0.9)
        brow = smooth(
            np.array([(x - side * 0.13, y - tall - 0.15), (x, y - tall - 0.17), (x + side * 0.13, y - tall - 0.08)]),
            False,
        )
        canvas.stroke(project(brow, 0.6), INK, 0.05 * project.scale, clip=outline)


def _snout(pen: _Pen, scene: Scene) -> None:
    canvas, project, coat, build = pen.canvas, pen.project, scene.coat, scene.build
    wide = build.muzzle
    jaw = smooth(mirror([(0, 0.6), (0.3 * wide, 0.66), (0.34 * wide, 0.86), (0.22, 1.02), (0, 1.06)]))
    pen.draw(jaw, (0.42, 0.1, 0.13), 0.95)
    tongue = project(
        smooth(
            np.array([(-0.2, 0.74), (0.0, 0.7), (0.2, 0.74), (0.22, 1.1), (0.13, 1.3), (-0.05, 1.32), (-0.18, 1.18)])
        ),
        1.1,
    )
    canvas.fill(tongue, TONGUE)
    pen.ink(tongue, 0.8)
    canvas.stroke(project(np.array([(0.0, 0.84), (0.0, 1.12)]), 1.1), shade(TONGUE, 0.72), 0.04 * project.scale)
    light = vivid(mix(coat.dark, coat.base, 0.2) if coat.kind == "points" else mix(coat.light, coat.base, 0.12))
    muzzle = project(muzzle_outline(scene), 1.0)
    canvas.fill(muzzle, light)
    for side in (-1, 1):
        cheek = ellipse(side * 0.3 * wide, 0.6, 0.3 * wide, 0.22)
        canvas.fill(project(cheek, 1.05), mix(light, WHITE, 0.22), 1.0, muzzle)
    pen.ink(muzzle)
    split = smooth(np.array([(0, 0.38), (0, 0.55), (0, 0.7)]), False, 3)
    canvas.stroke(project(split, 1.12), INK, 0.05 * project.scale)
    for side in (-1, 1):
        smile = smooth(
            np.array([(0, 0.7), (side * 0.18, 0.8), (side * 0.4 * wide, 0.76), (side * 0.56 * wide, 0.62)]), False
        )
        canvas.stroke(project(smile, 1.08), INK, 0.055 * project.scale)
        for x, y in ((0.26, 0.52), (0.37, 0.58), (0.28, 0.64)):
            canvas.fill(project(ellipse(side * x * wide, y, 0.022, 0.022), 1.1), INK)
    large = build.nose
    half = [(0, 0.02), (0.16, 0.03), (0.27, 0.12), (0.24, 0.25), (0.1, 0.37), (0, 0.39)]
    nose = project(smooth(mirror(half)) * (large, 1), 1.25)
    canvas.fill(nose, mix((0.12, 0.09, 0.1), coat.nose, 0.06))
    pen.ink(nose, 0.7)
    canvas.fill(project(ellipse(-0.08 * large, 0.1, 0.09, 0.045, -0.25), 1.28), WHITE, 0.85)


def draw_dog(scene: Scene, size: int) -> np.ndarray:
    """The dog, uint8 RGB premultiplied by alpha, `[size,size,4]`."""
    canvas = Canvas(size)
    head = head_projection(scene, size)
    light = scene.light
    # The lit shape is the outline moved towards the light; at least a little upwards, so that there is always a shadow.
    shift = np.array([light.x, light.y - 0.25]) * (0.1 + 0.1 * light.strength) * head.scale
    _body(_Pen(canvas, body_projection(scene, size)), scene, shift)
    pen = _Pen(canvas, head)
    outline = head(head_outline(scene))
    pen.shadow(outline, vivid(scene.coat.base), shift)
    _markings(pen, scene, outline)
    pen.ink(outline)
    for side in (-1, 1):
        # The ear on the far side slips behind the turning head instead of covering the face.
        away = max(0.0, side * float(np.sin(scene.pose.yaw)))
        ear = head(ear_outline(scene, side) + np.array([side * 0.45 * away, 0.0]), 0.1)
        pen.shadow(ear, vivid(_ear_colour(scene, side)), shift * 0.8)
        pen.ink(ear)
    _eyes(pen, scene, outline)
    _snout(pen, scene)
    return canvas.finish()
