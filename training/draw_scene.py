"""What a picture shows: every choice that both the cat and the dog are drawn from, sampled from one generator.

Nothing here is chosen for the dog alone: a network that sees the cat can in principle know the whole dog.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]

COATS = ("tabby", "solid", "tuxedo", "calico", "points", "bicolour")
BACKGROUNDS = ("gradient", "bokeh", "room", "grass", "leaves", "blanket", "studio", "window")

# Base fur, as sRGB bytes.
_FURS = {
    "ginger": (204, 134, 74),
    "red": (178, 104, 56),
    "cream": (226, 198, 160),
    "fawn": (188, 152, 112),
    "brown": (140, 108, 78),
    "chocolate": (92, 64, 48),
    "grey": (134, 134, 138),
    "blue": (104, 112, 124),
    "silver": (178, 176, 172),
    "black": (44, 40, 40),
    "white": (234, 230, 222),
}
_EYES = (
    (196, 200, 88),
    (150, 178, 76),
    (222, 164, 50),
    (206, 116, 36),
    (110, 170, 130),
    (104, 158, 206),
    (168, 150, 84),
)


@dataclass(frozen=True)
class Pose:
    """`x`, `y`: middle of the head, from -1 to 1 across the picture; `scale`: half the head's width as a part of the
    picture's width; angles in radians; `gaze_x`, `gaze_y`: where the eyes look, from -1 to 1."""

    x: float
    y: float
    scale: float
    yaw: float
    pitch: float
    roll: float
    gaze_x: float
    gaze_y: float
    lean: float


@dataclass(frozen=True)
class Build:
    """Proportions of one animal, each near 1 but eyelids (0 shut .. 1 wide), pupil (0 slit .. 1 round), stretch."""

    cheek: float
    length: float
    ear_height: float
    ear_width: float
    ear_spread: float
    eye: float
    eye_gap: float
    lids: float
    slant: float
    pupil: float
    muzzle: float
    nose: float
    shoulders: float
    stretch: float
    fluff: float


@dataclass(frozen=True)
class Coat:
    """`base`, `dark` (stripes, points, patches), `light` (chest, muzzle), `second` (a calico's other patches)."""

    kind: str
    base: Colour
    dark: Colour
    light: Colour
    second: Colour
    nose: Colour
    iris: Colour
    white: float
    patches: tuple[tuple[float, float, float, float, float], ...]
    stripes: float


@dataclass(frozen=True)
class Light:
    """`x`, `y`, `z`: towards the light, of length 1; `strength`: how dark the far side is; `tint`: the
    light's colour, as gains near 1."""

    x: float
    y: float
    z: float
    strength: float
    tint: Colour
    exposure: float


@dataclass(frozen=True)
class Background:
    """A kind, its colours, and a seed for its blobs."""

    kind: str
    colours: tuple[Colour, ...]
    seed: int
    blur: float


@dataclass(frozen=True)
class Scene:
    """Everything that one pair is drawn from."""

    pose: Pose
    build: Build
    coat: Coat
    light: Light
    background: Background
    fur: int


def mix(a: Colour, b: Colour, part: float) -> Colour:
    """`part` of `b` in `a`."""
    return tuple(x + (y - x) * part for x, y in zip(a, b, strict=True))


def shade(colour: Colour, factor: float) -> Colour:
    """`colour` times `factor`, kept within 0..1."""
    return tuple(min(1.0, x * factor) for x in colour)


def _hue(rng: np.random.Generator, low: float = 0.0, high: float = 1.0, sat: float = 0.5, value: float = 1.0) -> Colour:
    return colorsys.hsv_to_rgb(rng.uniform(low, high) % 1.0, rng.uniform(0, sat), value * rng.uniform(0.25, 1.0))


def _fur(rng: np.random.Generator, names: tuple[str, ...]) -> Colour:
    red, green, blue = _FURS[names[rng.integers(len(names))]]
    gain = rng.uniform(0.86, 1.14)
    return tuple(float(np.clip(c / 255 * gain * rng.uniform(0.95, 1.05), 0.08, 0.95)) for c in (red, green, blue))


def _pose(rng: np.random.Generator) -> Pose:
    kind = rng.random()
    if kind < 0.68:  # a portrait: the whole head, ears included
        scale = rng.uniform(0.21, 0.34)
        x, y = rng.normal(0, 0.14), rng.normal(0.02, 0.12)
    elif kind < 0.9:  # a close-up: the picture cuts the ears
        scale = rng.uniform(0.34, 0.5)
        x, y = rng.normal(0, 0.16), rng.normal(-0.02, 0.14)
    else:  # nothing but face
        scale = rng.uniform(0.5, 0.66)
        x, y = rng.normal(0, 0.2), rng.normal(-0.1, 0.16)
    return Pose(
        x=float(np.clip(x, -0.45, 0.45)),
        y=float(np.clip(y, -0.4, 0.4)),
        scale=scale,
        yaw=float(np.clip(rng.normal(0, 0.25), -0.5, 0.5)),
        pitch=float(np.clip(rng.normal(0, 0.13), -0.3, 0.3)),
        roll=float(np.clip(rng.normal(0, 0.16), -0.5, 0.5)),
        gaze_x=float(np.clip(rng.normal(0, 0.45), -1, 1)),
        gaze_y=float(np.clip(rng.normal(0, 0.35), -1, 1)),
        lean=rng.normal(0, 0.25),
    )


def _build(rng: np.random.Generator) -> Build:
    return Build(
        cheek=rng.uniform(0.9, 1.1),
        length=rng.uniform(0.92, 1.08),
        ear_height=rng.uniform(0.8, 1.2),
        ear_width=rng.uniform(0.85, 1.15),
        ear_spread=rng.uniform(-0.12, 0.16),
        eye=rng.uniform(0.78, 1.15),
        eye_gap=rng.uniform(0.9, 1.1),
        lids=rng.uniform(0.62, 1.05),
        slant=rng.uniform(0.0, 0.22),
        pupil=float(rng.beta(1.2, 1.4)),
        muzzle=rng.uniform(0.85, 1.15),
        nose=rng.uniform(0.72, 1.12),
        shoulders=rng.uniform(0.85, 1.25),
        stretch=rng.uniform(-0.06, 0.28),
        fluff=rng.uniform(0.2, 1.0),
    )


def _coat(rng: np.random.Generator) -> Coat:
    kind = COATS[rng.choice(len(COATS), p=(0.34, 0.16, 0.13, 0.13, 0.11, 0.13))]
    cream = _fur(rng, ("white", "cream"))
    white = 0.0
    second = cream
    if kind == "tabby":
        base = _fur(rng, ("ginger", "brown", "grey", "silver", "fawn", "red", "cream", "brown"))
        dark = shade(mix(base, (0.16, 0.11, 0.09), 0.35), rng.uniform(0.4, 0.62))
        light = mix(base, (0.97, 0.93, 0.87), rng.uniform(0.45, 0.85))
    elif kind == "solid":
        base = _fur(rng, ("black", "grey", "blue", "white", "cream", "ginger", "chocolate", "fawn"))
        dark = shade(base, rng.uniform(0.6, 0.75))
        light = mix(base, (1.0, 0.98, 0.95), rng.uniform(0.12, 0.3))
    elif kind == "tuxedo":
        base = _fur(rng, ("black", "black", "blue", "chocolate"))
        dark = shade(base, 0.75)
        light, white = cream, rng.uniform(0.35, 1.0)
    elif kind == "calico":
        base = _fur(rng, ("white", "white", "cream"))
        dark = _fur(rng, ("black", "chocolate", "grey"))
        second = _fur(rng, ("ginger", "red", "fawn"))
        light = mix(base, (1, 1, 1), 0.3)
    elif kind == "points":
        base = _fur(rng, ("cream", "white", "fawn"))
        dark = _fur(rng, ("chocolate", "black", "blue", "grey"))
        light = mix(base, (1, 1, 1), 0.35)
    else:
        base = _fur(rng, ("ginger", "grey", "brown", "black", "blue", "fawn"))
        dark = shade(base, rng.uniform(0.55, 0.75))
        light, white = cream, rng.uniform(0.6, 1.4)
    patches = []
    if kind == "calico":
        for side in (-1, 1):
            if rng.random() < 0.85:
                which = float(rng.random() < 0.5)
                patches.append(
                    (
                        side * rng.uniform(0.4, 0.75),
                        rng.uniform(-0.6, -0.05),
                        rng.uniform(0.35, 0.6),
                        rng.uniform(0.35, 0.6),
                        which,
                    )
                )
        if rng.random() < 0.4:
            patches.append((rng.uniform(-0.7, 0.7), rng.uniform(0.4, 0.7), 0.3, 0.25, float(rng.random() < 0.5)))
    pink = (0.84 * rng.uniform(0.85, 1.08), 0.5 * rng.uniform(0.85, 1.15), 0.45 * rng.uniform(0.85, 1.15))
    dark_nose = kind in ("points", "solid", "tuxedo") and sum(dark) < 1.2 and rng.random() < 0.7
    nose = (0.2, 0.14, 0.14) if dark_nose else pink
    eyes = _EYES[5] if kind == "points" else _EYES[rng.integers(len(_EYES))]
    vivid = tuple(float(np.clip(c / 255 * rng.uniform(0.88, 1.1), 0, 1)) for c in eyes)
    iris = mix(vivid, (sum(vivid) / 3,) * 3, rng.uniform(0.0, 0.4))
    return Coat(kind, base, dark, light, second, nose, iris, white, tuple(patches), rng.uniform(0.45, 1.0))


def _light(rng: np.random.Generator) -> Light:
    x, y, z = rng.normal(0, 0.75), rng.normal(-0.65, 0.4), rng.uniform(0.5, 1.3)
    length = (x * x + y * y + z * z) ** 0.5
    warmth = rng.normal(0, 0.07)
    tint = (1 + warmth, 1 + rng.normal(0, 0.015), 1 - warmth)
    return Light(x / length, y / length, z / length, rng.uniform(0.25, 0.75), tint, float(np.exp(rng.normal(0.0, 0.1))))


def _background(rng: np.random.Generator) -> Background:
    kind = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    green = kind in ("grass", "leaves")
    count = 5
    if green:
        colours = tuple(_hue(rng, 0.18, 0.36, 0.7) for _ in range(count))
    elif kind == "studio":
        one = _hue(rng, sat=0.35)
        colours = tuple(shade(one, rng.uniform(0.7, 1.2)) for _ in range(count))
    else:
        home = rng.random()
        kin = [_hue(rng, home - 0.12, home + 0.12, 0.55) for _ in range(count - 1)]
        colours = (*kin, _hue(rng, sat=0.8))
    return Background(kind, colours, int(rng.integers(1 << 31)), float(rng.uniform(0.004, 0.045)))


def sample(rng: np.random.Generator) -> Scene:
    """Draw one scene; the same generator state gives the same scene."""
    return Scene(_pose(rng), _build(rng), _coat(rng), _light(rng), _background(rng), int(rng.integers(1 << 31)))
