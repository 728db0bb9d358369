"""The cat: flat coat colours from vector paths, made into fur by displacing and lighting them pixel by pixel."""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np

from training.draw_canvas import Canvas
from training.draw_noise import FUR_EXTENT, FUR_PIXELS, clouds, fur_sheet
from training.draw_pose import Projection, ellipse, mirror, smooth, taper
from training.draw_scene import Colour, Scene, mix, shade

WHITE: Colour = (1.0, 1.0, 1.0)
BLACK: Colour = (0.0, 0.0, 0.0)
HEAD_DEPTH = 0.45  # where the face, as a flat sheet, is thought to be


def head_projection(scene: Scene, size: int) -> Projection:
    """Face coordinates to the pixels of a picture `size` wide."""
    pose = scene.pose
    centre = (size / 2 * (1 + pose.x), size / 2 * (1 + pose.y))
    return Projection(centre, pose.scale * size, pose.yaw, pose.pitch, pose.roll, scene.build.stretch)


def body_projection(scene: Scene, size: int) -> Projection:
    """As `head_projection`, for neck and shoulders, which turn and tilt less than the head."""
    pose = scene.pose
    centre = (size / 2 * (1 + pose.x), size / 2 * (1 + pose.y))
    return Projection(centre, pose.scale * size, pose.yaw * 0.4, 0.0, pose.roll * 0.35 + pose.lean * 0.5)


def surface(points: np.ndarray) -> np.ndarray:
    """Depth of the round head under face coordinates `[n,2]`."""
    x, y = points[:, 0] / 1.08, points[:, 1] / 1.02
    return 0.72 * np.sqrt(np.maximum(0.0, 1.0 - x * x - y * y))


def head_outline(scene: Scene) -> np.ndarray:
    """The cat's head `[n,2]` in face coordinates."""
    build = scene.build
    cheek, length, fluff = build.cheek, build.length, build.fluff
    half = [
        (0, -0.83),
        (0.36, -0.81),
        (0.7, -0.62),
        (0.93, -0.26),
        (1.0 * cheek, 0.1),
        ((0.93 + 0.08 * fluff) * cheek, 0.42),
        (0.62 * cheek, 0.72 * length),
        (0.27, 0.92 * length),
        (0, 0.95 * length),
    ]
    return smooth(mirror(half))


def ear_outline(scene: Scene, side: int, inner: bool) -> np.ndarray:
    """One ear, or the bare skin in it, `[n,2]` in face coordinates; `side` is -1 or 1."""
    build = scene.build
    tip = np.array([0.74 + build.ear_spread, -0.72 - 0.68 * build.ear_height])
    root, outer = np.array([0.2, -0.7]), np.array([0.3 + 0.68 * build.ear_width, -0.26])
    points = np.array(
        [
            root,
            root * 0.5 + tip * 0.5 + (-0.05, -0.03),
            (tip[0] - 0.05, tip[1] + 0.03),
            (tip[0] + 0.02, tip[1] + 0.01),
            tip * 0.5 + outer * 0.5 + (0.09, -0.03),
            outer,
            (0.55, -0.3),
        ]
    )
    if inner:
        middle = points.mean(0)
        points = middle + (points - middle) * (0.64, 0.72) + (0.02, 0.02)
    return smooth(points, steps=5) * (side, 1)


def body_outline(scene: Scene) -> np.ndarray:
    """Neck, chest and shoulders `[n,2]` in body coordinates, well past the picture's lower edge."""
    wide = scene.build.shoulders
    half = [
        (0, 0.1),
        (0.62, 0.25),
        (0.86 * wide, 0.85),
        (1.3 * wide, 1.4),
        (1.6 * wide, 2.3),
        (1.7 * wide, 5.5),
        (0, 6),
    ]
    return smooth(mirror(half), steps=4)


def eye_middle(scene: Scene, side: int) -> np.ndarray:
    """Middle of one eye in face coordinates."""
    return np.array([side * 0.43 * scene.build.eye_gap, -0.08])


def eye_outline(scene: Scene, side: int, grow: float = 1.0) -> np.ndarray:
    """The opening between the lids `[n,2]`: an almond whose outer corner is the higher one."""
    build = scene.build
    angle = np.linspace(0, 2 * math.pi, 26, endpoint=False)
    rx, ry = 0.21 * build.eye * grow, 0.198 * build.eye * grow * (0.45 + 0.55 * build.lids)
    x, y = rx * np.cos(angle), ry * np.sin(angle)
    y = np.where(y < 0, y * (0.75 + 0.25 * build.lids), y) * (1 - 0.22 * (x / rx) ** 2)
    corner = np.clip(-x / rx - 0.55, 0, 1)  # the tear duct runs down towards the nose
    return eye_middle(scene, side) + np.stack([side * (x - 0.1 * corner), y - build.slant * x + 0.1 * corner], 1)


def _tabby(canvas: Canvas, scene: Scene, project, clip: np.ndarray) -> None:
    """Forehead M, lines on the crown, beside the eyes and on the cheeks."""
    dark, strength = scene.coat.dark, scene.coat.stripes
    rng = np.random.default_rng((scene.fur, 7))
    bands = [[(0.0, -0.95), (0.0, -0.62), (0.0, -0.36)]]
    for side in (-1, 1):
        bands += [
            [(side * 0.13, -0.95), (side * 0.15, -0.66), (side * 0.12, -0.4)],
            [(side * 0.34, -0.92), (side * 0.33, -0.62), (side * 0.22, -0.36)],
            [(side * 0.56, -0.84), (side * 0.55, -0.58), (side * 0.42, -0.34)],
            [(side * 0.62, -0.12), (side * 0.84, -0.04), (side * 1.02, 0.14)],
            [(side * 0.58, 0.1), (side * 0.78, 0.24), (side * 0.96, 0.34)],
            [(side * 0.5, 0.28), (side * 0.66, 0.46), (side * 0.88, 0.52)],
            [(side * 0.13, -0.24), (side * 0.12, -0.02), (side * 0.16, 0.14)],
        ]
    for number, band in enumerate(bands):
        line = smooth(np.array(band) + rng.normal(0, 0.025, (3, 2)), False, 6)
        width = rng.uniform(0.07, 0.13) * (0.5 if number % 7 == 0 and number else 1.0)
        shape = taper(line, width, 0.35, 0.1)
        canvas.fill(project(shape, surface(shape)), dark, strength, clip)


def _head_coat(canvas: Canvas, scene: Scene, project: Projection, outline: np.ndarray) -> None:
    coat, build = scene.coat, scene.build

    def patch(shape: np.ndarray, colour: Colour, alpha: float = 1.0) -> None:
        canvas.fill(project(shape, surface(shape)), colour, alpha, outline)

    canvas.fill(outline, coat.base)
    if coat.kind == "points":
        for grow, alpha in ((1.25, 0.3), (1.0, 0.45), (0.75, 0.75)):
            patch(ellipse(0, 0.3, 0.62 * grow, 0.62 * grow), coat.dark, alpha)
    for x, y, rx, ry, which in coat.patches:
        shape = ellipse(x, y, rx, ry, 0.4 * x)
        patch(shape, coat.dark if which else coat.second)
    if coat.kind == "tabby":
        patch(ellipse(0, -0.62, 0.5, 0.34), coat.dark, 0.22)
        _tabby(canvas, scene, project, outline)
        for side in (-1, 1):
            patch(ellipse(side * 0.43, 0.14, 0.26, 0.1, side * 0.2), coat.light, 0.6)
            patch(eye_outline(scene, side, 1.42), coat.light, 0.65)
            patch(eye_outline(scene, side, 1.24), shade(coat.dark, 0.8), 0.75)
    if coat.white > 0:
        width = 0.1 + 0.16 * coat.white
        blaze = [(0, -0.75), (width * 0.5, -0.4), (width, 0.0), (0.42 * coat.white + 0.24, 0.5), (0.5, 1.0), (0, 1.1)]
        start = 1 if coat.white > 0.6 else 2
        top = (0, -0.75) if coat.white > 0.6 else (0, 0.05)
        patch(smooth(mirror([top, *blaze[start:]])), coat.light)
    if coat.kind in ("tabby", "solid", "calico"):
        reach = build.muzzle
        for side in (-1, 1):
            patch(ellipse(side * 0.2, 0.5, 0.3 * reach, 0.22 * reach), coat.light, 0.85)
        patch(ellipse(0, 0.74, 0.26 * reach, 0.18), coat.light, 0.85)
    if coat.kind == "tabby":
        patch(
            smooth(mirror([(0, -0.3), (0.09, -0.1), (0.1, 0.15), (0.06, 0.3), (0, 0.32)])),
            mix(coat.base, coat.nose, 0.35),
            0.8,
        )


def _body_coat(canvas: Canvas, scene: Scene, project: Projection) -> None:
    coat = scene.coat
    outline = project(body_outline(scene), -0.35)
    body = mix(coat.base, coat.dark, 0.25 if coat.kind == "points" else 0.0)
    canvas.fill(outline, body)
    if coat.kind == "tabby":
        rng = np.random.default_rng((scene.fur, 11))
        for row in range(7):
            for side in (-1, 1):
                y = 1.05 + 0.36 * row + rng.normal(0, 0.05)
                line = np.array([(side * 0.45, y + 0.22), (side * 1.1, y + 0.12), (side * 1.8, y - 0.2)])
                band = taper(smooth(line + rng.normal(0, 0.06, (3, 2)), False), rng.uniform(0.1, 0.2), 0.1, 0.6)
                canvas.fill(project(band, -0.35), coat.dark, coat.stripes * 0.8, outline)
    if coat.kind == "calico":
        canvas.fill(project(ellipse(-1.2, 1.9, 0.8, 1.0), -0.35), coat.second, 1.0, outline)
        canvas.fill(project(ellipse(1.3, 2.3, 0.7, 0.9), -0.35), coat.dark, 1.0, outline)
    if coat.kind != "points":
        bib = 0.62 if coat.white > 0 else 0.5
        chest = smooth(mirror([(0, 0.4), (bib, 0.9), (bib * 0.85, 1.8), (0.3, 2.6), (0, 2.8)]))
        canvas.fill(project(chest, -0.2), coat.light, 1.0 if coat.white > 0 else 0.6, outline)


def _coat(scene: Scene, size: int, head: Projection, body: Projection) -> np.ndarray:
    canvas = Canvas(size)
    coat = scene.coat
    _body_coat(canvas, scene, body)
    ear = coat.dark if coat.kind == "points" else mix(coat.base, coat.dark, 0.3)
    for side in (-1, 1):
        colour = ear
        for x, y, _, ry, which in coat.patches:
            if x * side > 0 and y - ry < -0.55:
                colour = coat.dark if which else coat.second
        canvas.fill(head(ear_outline(scene, side, False), -0.1), colour)
        skin = mix(coat.nose if coat.nose[0] > 0.4 else (0.5, 0.36, 0.34), colour, 0.3)
        canvas.fill(head(ear_outline(scene, side, True), -0.05), skin)
        for strand in range(7):  # tufts growing across the opening from its inner edge
            x0, y0 = 0.3 + 0.05 * strand, -0.62 + 0.02 * strand
            line = np.array([(x0, y0), (x0 + 0.12, y0 - 0.17), (x0 + 0.27 - 0.02 * strand, y0 - 0.36)]) * (side, 1)
            canvas.fill(head(taper(smooth(line, False, 3), 0.05, 0.8), -0.02), mix(coat.light, colour, 0.25), 0.75)
    _head_coat(canvas, scene, head, head(head_outline(scene)))
    return canvas.finish()


def _relief(scene: Scene, size: int, head: Projection, body: Projection) -> np.ndarray:
    """Soft light and shade that the round head alone does not give; float32 `[size,size]` around 1."""
    small = size // 2
    head = head_projection(scene, small)
    body = body_projection(scene, small)
    canvas = Canvas(small)
    canvas.fill(np.array([[0, 0], [small, 0], [small, small], [0, small]]), (0.5, 0.5, 0.5))

    def put(shape: np.ndarray, grey: float, alpha: float, depth: float | None = None) -> None:
        at = surface(shape) if depth is None else depth
        canvas.fill(head(shape, at), (grey, grey, grey), alpha)

    canvas.fill(body(ellipse(0, 0.98, 0.95, 0.42), -0.3), BLACK, 0.75)  # the head's shadow on the chest
    for side in (-1, 1):
        put(ellipse(side * 0.5, -0.62, 0.3, 0.16, side * 0.5), 0.0, 0.25, 0.0)
        put(ellipse(side * 0.42, -0.08, 0.3, 0.26), 0.0, 0.22)
        put(ellipse(side * 0.2, 0.12, 0.08, 0.3, side * -0.2), 0.0, 0.3)
        put(ellipse(side * 0.66, 0.3, 0.24, 0.26), 1.0, 0.22)
        put(ellipse(side * 0.19, 0.5, 0.2, 0.15), 1.0, 0.5, 0.95)
        put(ellipse(side * 0.44, 0.46, 0.05, 0.2, side * -0.3), 0.0, 0.25, 0.8)
        put(ellipse(side * 0.3, 0.7, 0.26, 0.06, side * -0.35), 0.0, 0.4, 0.8)
        put(ellipse(side * 0.3, -0.36, 0.18, 0.09, side * -0.3), 1.0, 0.25)
    put(smooth(mirror([(0, -0.4), (0.09, -0.1), (0.1, 0.2), (0, 0.3)])), 1.0, 0.35, 0.95)
    put(ellipse(0, -0.6, 0.2, 0.25), 1.0, 0.15)
    put(ellipse(0, 0.76, 0.15, 0.09), 1.0, 0.35, 0.8)
    relief = canvas.finish()[..., 0].astype(np.float32) / 255
    relief = cv2.GaussianBlur(relief, (0, 0), max(0.6, 0.055 * scene.pose.scale * small))
    return 0.45 + 1.1 * cv2.resize(relief, (size, size), interpolation=cv2.INTER_LINEAR)


def lighting(scene: Scene, size: int, head: Projection) -> np.ndarray:
    """How bright a round head is at each pixel under the scene's light; float32 `[size,size]` around 1."""
    small = size // 2
    inverse = cv2.invertAffineTransform(head.face_map(0.0))
    step = np.arange(small, dtype=np.float32) * 2
    px, py = np.meshgrid(step, step)
    u = (inverse[0, 0] * px + inverse[0, 1] * py + inverse[0, 2]).astype(np.float32)
    v = (inverse[1, 0] * px + inverse[1, 1] * py + inverse[1, 2]).astype(np.float32)
    distance = np.sqrt((u / 1.1) ** 2 + (np.where(v > 0.4, 0.4 + (v - 0.4) * 0.35, v) / 1.1) ** 2)
    bend = np.minimum(distance, 1.6) * 0.95
    # The normal leans outwards the further a pixel is from the middle of the face; turn it into picture axes.
    length = np.maximum(distance, 1e-3)
    nx, ny, nz = np.sin(bend) * u / length, np.sin(bend) * v / length * 0.8, np.cos(bend)
    rotation, light = head.rotation, scene.light
    towards = rotation.T @ np.array([light.x, light.y, light.z])
    lit = nx * towards[0] + ny * towards[1] + nz * towards[2]
    shading = 1 - light.strength * 0.75 * (0.75 - np.clip(lit, -0.35, 1.0))
    return cv2.resize(shading.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)


def _features(scene: Scene, size: int, head: Projection) -> np.ndarray:
    """Eyes, nose, mouth and whiskers, uint8 premultiplied `[size,size,4]`."""
    canvas, coat, build, pose = Canvas(size), scene.coat, scene.build, scene.pose
    unit = head.scale
    rim = mix((0.07, 0.05, 0.05), coat.nose, 0.12)
    for side in (-1, 1):
        outline = eye_outline(scene, side)
        opening = head(outline, surface(outline))
        canvas.fill(head(eye_outline(scene, side, 1.1), surface(outline)), rim, 0.8)
        depth = float(surface(eye_middle(scene, side)[None])[0])
        middle = eye_middle(scene, side) + np.array([0.045 * pose.gaze_x, 0.03 * pose.gaze_y])
        radius = 0.235 * build.eye

        def ball(scale_x: float, scale_y: float, dx=0.0, dy=0.0, at=middle, r=radius, z=depth):
            return head(ellipse(at[0] + dx, at[1] + dy, r * scale_x, r * scale_y), z)

        canvas.fill(opening, shade(coat.iris, 0.38))
        canvas.fill(ball(0.97, 0.97), shade(coat.iris, 0.6), 1.0, opening)
        canvas.fill(ball(0.9, 0.9, 0, 0.01), shade(coat.iris, 0.82), 1.0, opening)
        canvas.fill(ball(0.82, 0.82, 0, 0.02), coat.iris, 1.0, opening)
        canvas.fill(ball(0.62, 0.55, 0, 0.06), mix(coat.iris, (1, 1, 0.8), 0.3), 0.55, opening)
        if pose.scale > 0.27:
            for spoke in range(0, 28):
                angle = spoke * 0.2244 + 0.1 * math.sin(spoke * 7.3 + scene.fur % 5)
                reach = radius * (0.78 + 0.12 * math.sin(spoke * 3.7))
                ray = middle + np.outer((reach * 0.3, reach), (math.cos(angle), math.sin(angle)))
                tone = shade(coat.iris, 0.72 if spoke % 3 else 1.3)
                canvas.stroke(head(ray, depth), tone, 0.011 * unit, 0.4, clip=opening)
        pupil = 0.16 + 0.5 * build.pupil
        canvas.fill(ball(pupil * 1.2, max(0.72, pupil * 1.15)), shade(coat.iris, 0.5), 0.6, opening)
        canvas.fill(ball(pupil, max(0.66, pupil)), (0.02, 0.02, 0.03), 1.0, opening)
        lid = smooth(np.array([(-0.3, -0.06), (-0.1, -0.2), (0.1, -0.2), (0.3, -0.1)]) + eye_middle(scene, side), False)
        canvas.stroke(head(lid, depth), BLACK, 0.16 * unit, 0.28, clip=opening)
        canvas.stroke(head(lid, depth), BLACK, 0.08 * unit, 0.3, clip=opening)  # the lid's shadow on the ball
        shine = (-0.3 + 0.45 * scene.light.x, -0.34)
        canvas.fill(ball(0.2, 0.17, radius * shine[0], radius * shine[1]), WHITE, 0.92, opening)
        canvas.fill(ball(0.3, 0.1, 0.3 * radius, 0.5 * radius), WHITE, 0.16, opening)
        canvas.stroke(opening, rim, 0.026 * unit, 0.9, closed=True)
    size_nose = build.nose
    half = [(0, 0.25), (0.1, 0.245), (0.155, 0.285), (0.11, 0.36), (0.05, 0.41), (0, 0.425)]
    nose = smooth(mirror(half)) * (size_nose, 1)
    canvas.fill(head(nose, 1.02), shade(coat.nose, 0.9))
    canvas.fill(head(ellipse(0, 0.285, 0.09 * size_nose, 0.03), 1.06), mix(coat.nose, WHITE, 0.35), 0.6)
    for side in (-1, 1):
        nostril = ellipse(side * 0.075 * size_nose, 0.345, 0.032, 0.018, side * 0.6)
        canvas.fill(head(nostril, 1.02), shade(coat.nose, 0.25), 0.9)
    line = shade(mix(coat.nose, (0.2, 0.12, 0.1), 0.75), 0.8)
    canvas.stroke(head(np.array([(0, 0.42), (0, 0.53)]), 1.0), line, 0.028 * unit, 0.8)
    for side in (-1, 1):
        lips = smooth(np.array([(0, 0.53), (side * 0.1, 0.61), (side * 0.22, 0.635), (side * 0.34, 0.6)]), False)
        canvas.fill(head(taper(lips, 0.034, 0.6, 0.1), 0.92), line, 0.6)
    rng = np.random.default_rng((scene.fur, 3))
    bright = sum(mix(coat.base, coat.light, 0.5)) / 3
    hair = (0.97, 0.96, 0.94) if bright < 0.8 or rng.random() < 0.7 else (0.45, 0.42, 0.4)
    for side in (-1, 1):
        for number in range(int(rng.integers(4, 8))):
            x, y = side * rng.uniform(0.16, 0.34), 0.44 + 0.035 * (number % 4) + rng.normal(0, 0.012)
            canvas.fill(head(ellipse(x, y, 0.013, 0.013), 0.95), shade(coat.dark, 0.6), 0.7)
            reach, fall = rng.uniform(0.7, 1.25), rng.normal(-0.08, 0.12) + 0.13 * (number % 4)
            points = np.array(
                [(x, y, 0.95), (x + side * reach * 0.5, y + fall * 0.3 - 0.05, 0.8), (x + side * reach, y + fall, 0.45)]
            )
            spine = smooth(points, False, 6)
            whisker = taper(head(spine[:, :2], spine[:, 2]), 0.0095 * unit, 1.3)
            canvas.fill(whisker, hair, 0.7)
        for number in range(3):
            x, y = side * (0.32 + 0.08 * number), -0.4
            points = np.array([(x, y), (x + side * 0.08, y - 0.25), (x + side * 0.3, y - 0.5)])
            canvas.fill(head(taper(smooth(points, False), 0.011, 1.0), 0.5), hair, 0.45)
    return canvas.finish()


def draw_cat(scene: Scene, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The cat before the camera, in two layers premultiplied by alpha, each `[size,size,4]`.

    First the lit fur, float32 about 0..1; over it eyes, nose, mouth and whiskers, uint8.
    """
    head, body = head_projection(scene, size), body_projection(scene, size)
    sheet = fur_sheet(scene.fur)
    step = FUR_PIXELS / (2 * FUR_EXTENT)
    to_sheet = np.array([[step, 0, FUR_PIXELS / 2], [0, step, FUR_PIXELS / 2], [0, 0, 1]])
    # A close-up shows finer hairs between those that a portrait shows:
    # shrink the sheet about the point that hair grows from, so that hairs never look thicker than a few pixels.
    zoom = min(max(scene.pose.scale / 0.26, 1.0), 2.2)
    finer = np.array([[1 / zoom, 0, 0], [0, 1 / zoom, 0.28 * (1 - 1 / zoom)], [0, 0, 1]])
    full = np.vstack([head.face_map(HEAD_DEPTH), (0, 0, 1)]) @ finer @ np.linalg.inv(to_sheet)
    fur = cv2.warpAffine(sheet, full[:2], (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    fine, coarse, dx, dy = cv2.split(fur)
    # Every edge between two colours, and the outline, is dragged along the hair: that is what makes them furry.
    build, unit = scene.build, head.scale
    pull = 0.035 * unit / zoom**0.6
    drag = coarse * np.float32(pull * (0.5 + 0.5 * build.fluff)) + fine * np.float32(pull / 2)
    linear = head.rotation[:2, :2].astype(np.float32)
    across = _grid(size)[0] - (linear[0, 0] * dx + linear[0, 1] * dy) * drag
    down = _grid(size)[1] - (linear[1, 0] * dx + linear[1, 1] * dy) * drag
    coat = _coat(scene, size, head, body)
    softness = 0.012 * unit
    if softness > 0.5:
        coat = cv2.GaussianBlur(coat, (0, 0), softness)
    coat = cv2.remap(coat, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    bright = cv2.cvtColor(coat, cv2.COLOR_RGBA2GRAY) * np.float32(1 / 255)
    hair = fine + coarse
    sheen = np.maximum(hair - 1, 0) * (0.038 - 0.02 * bright)
    light = lighting(scene, size, head) * _relief(scene, size, head, body)
    # A camera's automatic exposure: a white cat comes out white in the shade too.
    shown = cv2.mean(light, np.ascontiguousarray(coat[..., 3]))[0]
    light *= (0.97 / max(shown, 0.2)) * (1 + hair * (0.033 + 0.045 * build.fluff) * (1.35 - 0.9 * bright))
    layer = coat * np.float32(1 / 255)
    # No coat is of one colour: broad patches are a little lighter, darker, warmer or colder.
    rng = np.random.default_rng((scene.fur, 5))
    depth, warmth = (0.05 * clouds(rng, size // 4, 2.5 / scene.pose.scale, 2) for _ in range(2))
    light *= 1 + cv2.resize(depth, (size, size))
    warm = 1 + cv2.resize(warmth, (size, size)) * 0.5
    sheen *= layer[..., 3]
    light = cv2.merge([light * warm, light, light * (2 - warm), np.ones_like(light)])
    layer *= light
    layer += cv2.merge([sheen, sheen, sheen, np.zeros_like(sheen)])
    return layer, _features(scene, size, head)


@functools.lru_cache(maxsize=4)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    axis = np.arange(size, dtype=np.float32)
    across, down = np.meshgrid(axis, axis)
    return across, down
