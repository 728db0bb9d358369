"""The loss curve as a picture; Pillow draws it, so that training needs no plotting package."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

_WIDTH, _HEIGHT, _MARGIN = 900, 480, 56


def loss_curve(history: list[tuple[int, float, float]]) -> np.ndarray:
    """uint8 `[480,900,3]`: loss (logarithmic, blue) and its running mean (red) over steps."""
    picture = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    steps, losses = [entry[0] for entry in history], [max(entry[1], 1e-9) for entry in history]
    if not steps:
        return np.asarray(picture)
    low, high = math.log10(min(losses)), math.log10(max(losses))
    low, high = low - 0.02, max(high, low + 0.1)
    last = max(steps[-1], 1)

    def place(step: float, loss: float) -> tuple[float, float]:
        x = _MARGIN + (_WIDTH - 2 * _MARGIN) * step / last
        return x, _HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * (math.log10(loss) - low) / (high - low)

    for part in range(5):
        loss = 10 ** (low + (high - low) * part / 4)
        y = place(0, loss)[1]
        draw.line([(_MARGIN, y), (_WIDTH - _MARGIN, y)], fill=(225, 225, 225))
        draw.text((6, y - 6), f"{loss:.4f}", fill="black")
        x = place(last * part / 4, losses[0])[0]
        draw.text((x - 12, _HEIGHT - _MARGIN + 8), str(round(last * part / 4)), fill="black")
    draw.text((_WIDTH // 2 - 40, _HEIGHT - 22), "training step", fill="black")
    draw.text((_MARGIN, 18), f"loss (log), last {losses[-1]:.4f}", fill="black")
    window = max(1, len(losses) // 20)
    means = [float(np.mean(losses[max(0, i - window + 1) : i + 1])) for i in range(len(losses))]
    for values, colour, width in ((losses, (150, 180, 230), 1), (means, (200, 40, 40), 2)):
        points = [place(step, value) for step, value in zip(steps, values, strict=True)]
        draw.line(points if len(points) > 1 else points * 2, fill=colour, width=width)
    return np.asarray(picture)
