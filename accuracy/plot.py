"""Error against depth as a picture; Pillow draws it, so that no plotting package is needed."""

from __future__ import annotations

import io
import math
from pathlib import Path

from PIL import Image, ImageDraw

from accuracy.divergence import Divergence
from accuracy.thresholds import UNIT
from runtime.files import write_bytes

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 900, 460, 70, 40, 120
_GREY, _RED, _BLUE = (200, 200, 200), (200, 30, 30), (40, 80, 180)
_LARGEST, _SMALLEST = 1e3, 1e-8  # infinite errors are drawn at the top, equal values at the bottom


def write_plot(path: Path, divergence: Divergence, title: str) -> None:
    """A PNG of 900 by 460: each block's relative error (blue) and own error (red), logarithmic; the suspect in red."""
    picture = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    errors = [_bounded(block.error) for block in divergence.blocks]
    own = [_bounded(block.own) for block in divergence.blocks]
    unit = UNIT[divergence.precision]
    low = math.floor(math.log10(min([unit, *errors, *own])))
    high = max(math.ceil(math.log10(max([unit, *errors, *own]))), low + 1)

    def x(index: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - 30) * (index + 0.5) / len(errors)

    def y(error: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (math.log10(error) - low) / (high - low)

    for power in range(low, high + 1):
        draw.line([(_LEFT, y(10.0**power)), (_WIDTH - 30, y(10.0**power))], fill=_GREY)
        draw.text((10, y(10.0**power) - 6), f"1e{power}", fill="black")
    draw.line([(_LEFT, y(unit)), (_WIDTH - 30, y(unit))], fill=(120, 120, 120), width=1)
    draw.text((_WIDTH - 140, y(unit) - 14), f"unit of {divergence.precision}", fill="black")
    for series, colour in ((errors, _BLUE), (own, _RED)):
        points = [(x(index), y(error)) for index, error in enumerate(series)]
        draw.line(points, fill=colour, width=2)
        for px, py in points:
            draw.ellipse([px - 3, py - 3, px + 3, py + 3], fill=colour)
    for index, block in enumerate(divergence.blocks):
        if len(errors) <= 40 or block.name == divergence.suspect:
            _upright(picture, block.name, int(x(index)), _RED if block.name == divergence.suspect else (0, 0, 0))
    draw.text((_LEFT, 12), f"{title}: relative error so far (blue), of the block itself (red)", fill="black")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())


def _bounded(error: float | None) -> float:
    return min(max(error or 0.0, _SMALLEST), _LARGEST)


def _upright(picture: Image.Image, text: str, centre: int, colour: tuple[int, int, int]) -> None:
    label = Image.new("RGB", (_BOTTOM - 8, 14), "white")
    ImageDraw.Draw(label).text((0, 1), text[-18:], fill=colour)
    picture.paste(label.rotate(270, expand=True), (centre - 7, _HEIGHT - _BOTTOM + 8))
