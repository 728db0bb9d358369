"""Bars, lines and flames as SVG text, drawn by hand: no library, and text that stays readable on a phone.

A drawing is 480 units wide and stretches with the page, so that 13 units of text are about 10 pixels on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from bench.tables import number

WIDTH = 480
_TEXT, _SMALL = 13, 11
# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = {
    "torch": "#56b4e9",
    "onnxruntime": "#009e73",
    "tensorrt": "#d55e00",
    "floor": "#444444",
    "other": "#cc79a7",
    "extra": "#e69f00",
}
_CYCLE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")


@dataclass(frozen=True)
class Bar:
    """A bar with its label above it. A whisker goes from `low` to `high`, where they are given; `parts` divide it."""

    label: str
    value: float
    colour: str
    low: float = 0.0
    high: float = 0.0
    note: str = ""
    parts: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True)
class Line:
    """Points (x, y) that belong together; `dashed` for theory."""

    label: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    spreads: Sequence[float] = field(default_factory=tuple)


def bars(items: Sequence[Bar], unit: str, floor: tuple[str, float] | None = None) -> str:
    """Horizontal bars from 0, each with its figure; `floor` is a line across all of them, with its name."""
    row, top = 40, 26 if floor else 6
    most = max([max(item.value, item.high) for item in items] + ([floor[1]] if floor else []))
    room = WIDTH - 10
    scale = room / most if most > 0 else 0.0
    out = []
    for index, item in enumerate(items):
        y = top + index * row
        figure = f"{number(item.value)} {unit}{item.note}"
        out.append(_text(2, y + 12, item.label))
        out.append(_text(WIDTH - 2, y + 12, figure, anchor="end", bold=True))
        if item.parts:
            out += _parts(item, y + 17, scale)
        else:
            out.append(_rect(2, y + 17, item.value * scale, 14, item.colour, f"{item.label}: {figure}"))
        if item.high:
            low, high = 2 + item.low * scale, 2 + item.high * scale
            out.append(_path(f"M{low:.1f} {y + 24}H{high:.1f}M{low:.1f} {y + 20}v8M{high:.1f} {y + 20}v8", "#222"))
    height = top + len(items) * row
    if floor:
        x = 2 + floor[1] * scale
        anchor = "start" if x < WIDTH * 0.6 else "end"
        # Over the bars only: it would cross out the labels between them.
        way = "".join(f"M{x:.1f} {top + index * row + 14}v20" for index in range(len(items)))
        out.append(_path(way, COLOURS["floor"], width=2))
        out.append(_text(x, 12, f"{floor[0]}: {number(floor[1])} {unit}", anchor=anchor, size=_SMALL))
    return _svg(height, out)


def _parts(item: Bar, y: float, scale: float) -> list[str]:
    out, x = [], 2.0
    for index, (name, value) in enumerate(item.parts):
        width = value * scale
        out.append(_rect(x, y, width, 14, _CYCLE[index % len(_CYCLE)], f"{name}: {number(value)}"))
        if width > 7 * len(name):
            out.append(_text(x + 3, y + 11, name, size=_SMALL, colour="#fff"))
        x += width
    return out


def lines(items: Sequence[Line], x_title: str, y_title: str) -> str:
    """Lines over logarithmic axes, each with its name below; x ticks stand where the points are."""
    xs = sorted({x for item in items for x, _ in item.points})
    ys = [y for item in items for _, y in item.points if y > 0]
    left, right, top, bottom = 54, WIDTH - 14, 22, 250
    low, high = math.log10(min(ys)) - 0.1, math.log10(max(ys)) + 0.1
    x_low, x_high = math.log2(xs[0]) - 0.15, math.log2(xs[-1]) + 0.15

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log2(x) - x_low) / (x_high - x_low)
        up = (math.log10(y) - low) / (high - low)
        return left + across * (right - left), bottom - up * (bottom - top)

    out = [_text(2, 12, y_title, size=_SMALL), _text(right, bottom + 34, x_title, anchor="end", size=_SMALL)]
    for tick in _log_ticks(10**low, 10**high):
        _, y = place(xs[0], tick)
        out += [
            _path(f"M{left} {y:.1f}H{right}", "#ddd"),
            _text(left - 4, y + 4, number(tick), anchor="end", size=_SMALL),
        ]
    for x in xs:
        across, _ = place(x, ys[0])
        out += [
            _path(f"M{across:.1f} {bottom}v5", "#222"),
            _text(across, bottom + 18, number(x), anchor="middle", size=_SMALL),
        ]
    out.append(_path(f"M{left} {top}V{bottom}H{right}", "#222"))
    for index, item in enumerate(items):
        colour = "#444" if item.dashed else _CYCLE[index % len(_CYCLE)]
        points = [place(x, y) for x, y in item.points if y > 0]
        out.append(_path("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), colour, item.dashed, width=2))
        for (x, y), value in zip(points, [value for _, value in item.points if value > 0], strict=True):
            title = f"<title>{escape(item.label)}: {number(value)}</title>"
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}">{title}</circle>')
        y = bottom + 54 + 18 * index
        out.append(_path(f"M{left} {y - 4}h26", colour, item.dashed, width=3))
        out.append(_text(left + 34, y, item.label))
    return _svg(bottom + 54 + 18 * len(items), out)


def flame(levels: Sequence[Sequence[tuple[str, float, str]]], unit: str) -> str:
    """Rows of (name, size, colour), each as wide as the whole: the upper a summary of what lies below it."""
    total = sum(size for _, size, _ in levels[0])
    row = 30
    out = []
    for depth, level in enumerate(levels):
        x = 0.0
        for name, size, colour in level:
            width = size / total * WIDTH if total else 0.0
            label = f"{name}: {number(size)} {unit}, {100 * size / total if total else 0:.1f} %"
            out.append(_rect(x, depth * row, width, row - 2, colour, label, line=width > 1.5))
            if width > 7 * len(name) + 6:
                out.append(_text(x + 4, depth * row + 19, name, size=_SMALL, colour="#fff"))
            x += width
    return _svg(row * len(levels), out)


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) <= 8 else [tick for tick in inside if math.log10(tick).is_integer()]


def _svg(height: float, inside: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img"'
    return f'{head} font-family="system-ui, sans-serif">{"".join(inside)}</svg>'


def _text(
    x: float, y: float, text: str, anchor: str = "start", size: int = _TEXT, bold: bool = False, colour: str = "#222"
) -> str:
    weight = ' font-weight="600"' if bold else ""
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{weight}'
    return f"<text {place}>{escape(text)}</text>"


def _rect(x: float, y: float, width: float, height: float, colour: str, title: str, line: bool = False) -> str:
    edge = ' stroke="#fff" stroke-width="0.6"' if line else ""
    place = f'x="{x:.2f}" y="{y:.1f}" width="{max(width, 0.4):.2f}" height="{height}" fill="{colour}"{edge}'
    return f"<rect {place}><title>{escape(title)}</title></rect>"


def _path(way: str, colour: str, dashed: bool = False, width: float = 1) -> str:
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<path d="{way}" stroke="{colour}" stroke-width="{width}" fill="none"{dashes}/>'
